import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.statistics import Z95, median, paired_difference95, percentile, wilson95


def outcomes(only_first: int, only_second: int, n: int) -> tuple[list[bool], list[bool]]:
    agree = n - only_first - only_second
    first = [True] * only_first + [False] * only_second + [index % 2 == 0 for index in range(agree)]
    second = [False] * only_first + [True] * only_second + [index % 2 == 0 for index in range(agree)]
    return first, second


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_values(successes, n, low, high):
    assert wilson95(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400), st.data())
def test_wilson_holds_the_rate_and_mirrors(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson95(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson95(n - successes, n) == pytest.approx((1 - high, 1 - low))


def test_nothing_tried_tells_nothing():
    assert wilson95(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson95(successes, n)


def test_tango_against_published_value():
    """Bentur 2009's data as analysed by Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850-2875."""
    result = paired_difference95(*outcomes(1, 7, 21))
    assert (result.difference, result.low, result.high) == pytest.approx((-0.286, -0.517, -0.026), abs=5e-4)


@given(st.integers(1, 200), st.data())
def test_tango_against_the_closed_form(n, data):
    """Both ends are roots of the quartic of Yang, Sun and Hardin, Statistics in Medicine 32 (2013) 1336-1342."""
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    z2, d = Z95 * Z95, b - c
    quartic = [
        n**2 * (n / z2 + 1) ** 2,
        -n * d * (n / z2 + 1) * (4 * n / z2 + 1),
        2 * n * d**2 * (3 * n / z2 + 2) / z2 - n**2 * ((b + c) / z2 + 1),
        n * d * (2 * (b + c) / z2 + 1) - d**3 * (4 * n / z2 + 1) / z2,
        d**2 * (d**2 / z2 - (b + c)) / z2,
    ]
    result = paired_difference95(*outcomes(b, c, n))
    for end in (result.low, result.high):
        scale = np.polyval(np.abs(quartic), abs(end))
        assert abs(np.polyval(quartic, end)) <= 1e-9 * scale


@given(st.integers(1, 60), st.data())
def test_difference_mirrors_and_lies_inside(n, data):
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    result, swapped = paired_difference95(*outcomes(b, c, n)), paired_difference95(*outcomes(c, b, n))
    assert -1 <= result.low <= result.difference <= result.high <= 1
    assert result.low < result.high
    assert (swapped.low, swapped.high) == pytest.approx((-result.high, -result.low), abs=1e-9)
    assert (result.only_first, result.only_second, result.n) == (b, c, n)


def test_interval_narrows_with_more_seeds():
    few, many = paired_difference95(*outcomes(3, 1, 20)), paired_difference95(*outcomes(30, 10, 200))
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_unpaired_outcomes(first, second):
    with pytest.raises(ValueError, match="per seed"):
        paired_difference95(first, second)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentile_is_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), abs=1e-6)
    assert median(values) == pytest.approx(np.median(values), abs=1e-6)


@pytest.mark.parametrize(("values", "percent"), [([], 50.0), ([1.0], -1.0), ([1.0], 100.1)])
def test_percentile_of_nothing(values, percent):
    with pytest.raises(ValueError, match="percent"):
        percentile(values, percent)
