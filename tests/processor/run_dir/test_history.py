"""history.jsonl: what is kept when a run goes back, and files that a crash left behind."""

from pathlib import Path

import pytest

from processor.run_dir.history import NAME, Entry, append_entry, cut_history, read_history
from utils import FileError, UserError


def written(run_dir: Path) -> list[Entry]:
    """Two epochs of four steps, logged every two, the first evaluated."""
    entries = [
        Entry(1, 2, 4, train={"loss": 3.0}, lr={"1e-05": 1e-6}),
        Entry(1, 4, 4, train={"loss": 2.5}, lr={"1e-05": 1e-6}),
        Entry(1, 4, 4, val={"R1": 10.0, "mAP": 8.5}),
        Entry(2, 2, 4, train={"loss": 0.1 + 0.2}, lr={"1e-05": 2e-6}),
    ]
    for entry in entries:
        append_entry(run_dir, entry)
    return entries


def test_what_is_written_is_read_back_to_the_last_bit(tmp_path: Path):
    assert read_history(tmp_path) == []
    assert written(tmp_path) == read_history(tmp_path)
    assert [entry.position for entry in read_history(tmp_path)] == [0.5, 1.0, 1.0, 1.5]


@pytest.mark.parametrize(
    ("place", "left"), [((1, 0), 0), ((1, 3), 1), ((1, 4), 2), ((2, 0), 3), ((2, 1), 3), ((2, 2), 4)]
)
def test_going_back_drops_what_lies_beyond(tmp_path: Path, place: tuple[int, int], left: int):
    entries = written(tmp_path)
    cut_history(tmp_path, *place)
    assert read_history(tmp_path) == entries[:left]


def test_a_line_that_was_cut_off_is_left_out_and_a_damaged_one_named(tmp_path: Path):
    entries = written(tmp_path)
    path = tmp_path / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert read_history(tmp_path) == entries[:3]
    cut_history(tmp_path, 2, 2)
    append_entry(tmp_path, entries[3])
    assert path.read_bytes() == whole
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(UserError, match=r"history\.jsonl: line 1 is damaged"):
        read_history(tmp_path)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(FileError, match=r"history\.jsonl: cannot be written"):
        append_entry(tmp_path / "absent", Entry(1, 1, 4, train={"loss": 1.0}))
