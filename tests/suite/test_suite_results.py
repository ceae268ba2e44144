"""Stored episodes survive whatever ends the process that writes them."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suite_pieces import BY, NOWHERE, expert_cell, make_episode, store_expert

from memrt.runtime.errors import MemrtError
from memrt.sim.suite.candidates import find_candidate
from memrt.sim.suite.results import CellWriter, cell_file, read_cell, stored_cells

EPISODES = [make_episode(seed, success=seed % 2 == 0) for seed in range(4)]
SETTINGS = find_candidate("expert", "int8", "lockstep", NOWHERE).settings(expert_cell(), 1300)


def test_what_is_stored_is_read(tmp_path):
    path = store_expert(tmp_path, EPISODES)
    stored = read_cell(path)
    assert stored.settings == SETTINGS
    assert list(stored.episodes.values()) == EPISODES
    assert stored.by == [BY]
    assert stored_cells(tmp_path).keys() == {expert_cell()}
    assert path.read_text().count("\n") == 2 + len(EPISODES)
    assert len(path.read_bytes()) < 400 * (2 + len(EPISODES))  # fifty episodes of a cell can be committed


def test_nothing_is_stored_yet(tmp_path):
    assert read_cell(cell_file(tmp_path, expert_cell())) is None
    assert stored_cells(tmp_path) == {}


@settings(max_examples=25)
@given(st.data())
def test_a_file_torn_at_any_byte_keeps_every_whole_episode_and_goes_on(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("torn")
    path = store_expert(folder, EPISODES)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    stored = read_cell(path)
    kept = max(0, lines - 2)
    assert ([] if stored is None else list(stored.episodes.values())) == EPISODES[:kept]
    store_expert(folder, EPISODES[kept:])
    assert list(read_cell(path).episodes.values()) == EPISODES


def test_versions_are_written_where_they_change(tmp_path):
    path = store_expert(tmp_path, EPISODES[:2])
    with CellWriter(path, SETTINGS) as writer:
        writer.add(EPISODES[2], BY)
        writer.add(EPISODES[3], BY | {"mujoco": "9"})
    stored = read_cell(path)
    assert stored.by == [BY, BY | {"mujoco": "9"}]
    assert len(stored.episodes) == 4


def test_a_cell_of_other_settings_is_begun_anew(tmp_path):
    path = store_expert(tmp_path, EPISODES)
    store_expert(tmp_path, EPISODES[:1], cap_steps=7)
    assert list(read_cell(path).episodes) == [0]


def test_two_may_not_write_one_cell(tmp_path):
    path = cell_file(tmp_path, expert_cell())
    with CellWriter(path, SETTINGS), pytest.raises(MemrtError, match="one that is writing it"):
        CellWriter(path, SETTINGS)
    CellWriter(path, SETTINGS).__exit__(None, None, None)


@pytest.mark.parametrize("line", [b"{}", b"[]", b"\xff", b'{"by": ', msgspec.json.encode({"seed": 1, "colour": "red"})])
def test_a_damaged_file_is_refused(tmp_path, line):
    path = store_expert(tmp_path, EPISODES)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(MemrtError, match="restore the file"):
        read_cell(path)
