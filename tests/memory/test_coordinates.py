import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.memory.coordinates import (
    boxes_to_pixels,
    find_coordinates,
    format_coordinate,
    without_coordinates,
)

pixel = st.integers(0, 255)
orders = st.sampled_from(["row_column", "column_row"])


@given(st.lists(st.tuples(pixel, pixel), max_size=5), orders)
def test_round_trip(points, order):
    text = " then ".join(f"the cube {format_coordinate(row, column, order)}" for row, column in points)
    found = find_coordinates(text, order)
    assert [(c.row, c.column) for c in found] == points
    assert [text[c.start : c.stop] for c in found] == [format_coordinate(*point, order) for point in points]


def test_order_is_a_setting():
    (as_row_first,) = find_coordinates("pick up the red cube <120, 88>")
    (as_column_first,) = find_coordinates("pick up the red cube <120, 88>", "column_row")
    assert (as_row_first.row, as_row_first.column) == (120, 88) == (as_column_first.column, as_column_first.row)


@pytest.mark.parametrize(("grid", "pixels"), [((0, 0), (0, 0)), ((999, 500), (255, 128)), ((469, 347), (120, 88))])
def test_boxes_are_thousandths(grid, pixels):
    text = f"pick up <|box_start|>({grid[0]},{grid[1]})<|box_end|> now"
    (found,) = find_coordinates(text)
    assert (found.row, found.column) == pixels
    assert boxes_to_pixels(text) == f"pick up <{pixels[0]}, {pixels[1]}> now"


def test_outside_the_image_is_left_out():
    assert find_coordinates("<256, 3> <3, 9999> <|box_start|>(1000,1)<|box_end|>") == []


@pytest.mark.parametrize("text", ["<1 2>", "<-1, 2>", "<1.5, 2>", "<mem>", "<1, 2", "<12345, 1>", "<\u0663, 1>"])
def test_no_coordinate(text):
    assert find_coordinates(text) == []
    assert without_coordinates(text) == text


def test_grounded_becomes_simple():
    assert without_coordinates("pick up the red cube <120, 88> for the first time") == (
        "pick up the red cube for the first time"
    )
    assert without_coordinates("press the button <|box_start|>(1,2)<|box_end|> to stop") == "press the button to stop"


pieces = st.sampled_from(["<1, 2>", "<300, 1>", "<|box_start|>(9,9)<|box_end|>", "<", "1", ", ", ">"]) | st.text(
    max_size=4
)


@given(st.lists(pieces, max_size=8).map("".join))
def test_any_text(text):
    pixels = boxes_to_pixels(text)
    assert "<|box_start|>(9,9)<|box_end|>" not in pixels
    assert boxes_to_pixels(pixels) == pixels
    assert [(c.row, c.column) for c in find_coordinates(pixels)] == [(c.row, c.column) for c in find_coordinates(text)]
