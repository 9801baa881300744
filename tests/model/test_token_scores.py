"""Scores of tokens in a file: read back, set back to any checkpoint, and what is refused."""

import numpy as np
import pytest

from model.token_scores import TokenScores
from utils import UserError

N, L = 20, 6


def scores(step: int, rows: int, length: int = L) -> np.ndarray:
    return np.random.default_rng(step).uniform(-1, 1, (rows, length)).astype(np.float32)


def content(folder) -> bytes:
    return (folder / "token_scores").read_bytes()


def captions(step: int) -> np.ndarray:
    return np.random.default_rng((step, 1)).choice(N, 7, replace=False)


def train(store: TokenScores, first: int, last: int, save_at: tuple[int, ...] = ()) -> None:
    for step in range(first, last + 1):
        store.write(captions(step), scores(step, 7))
        if step in save_at:
            store.saved()


def test_read_and_written(tmp_path):
    store = TokenScores(tmp_path, N, L, 0)
    assert np.isnan(store.read(np.arange(N))).all()
    written = scores(0, 3)
    store.write(np.array([4, 0, 9]), written)
    assert np.abs(store.read(np.array([0, 4, 9])) - written[[1, 0, 2]]).max() <= 0.5 / 127 + 1e-6
    assert np.isnan(store.read(np.array([1]))).all()
    store.write(np.array([4]), np.array([[2.0, -3.0]], np.float32))
    assert store.read(np.array([4]))[0, :2].tolist() == [1.0, -1.0]
    # another process sees the same file
    assert np.memmap(tmp_path / "token_scores", np.uint8, "r", shape=(N, L))[4, 0] == 255


@pytest.mark.parametrize("killed_at", [12, 13, 17])
@pytest.mark.parametrize("resumed_at", [12, 8])
def test_a_killed_run_is_set_back(tmp_path, killed_at, resumed_at):
    """To the last checkpoint, or to the one before it, and goes on as if it had never been killed."""
    whole = tmp_path / "whole"
    whole.mkdir()
    store = TokenScores(whole, N, L, 0)
    states = {}
    for step in range(1, 21):
        train(store, step, step, (4, 8, 12))
        states[step] = content(whole)
    cut = tmp_path / "cut"
    cut.mkdir()
    train(TokenScores(cut, N, L, 0), 1, killed_at, (4, 8, 12))
    with (cut / "token_scores.undo").open("ab") as file:
        file.write(b"\x10" + bytes(30))  # cut off while it was written
    TokenScores(cut, N, L, resumed_at)
    assert content(cut) == states[resumed_at]
    again = TokenScores(cut, N, L, resumed_at)  # killed again at once
    assert content(cut) == states[resumed_at]
    train(again, resumed_at + 1, 20, (12, 16))
    assert content(cut) == states[20]


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="token_scores: has no bytes, 20 captions of 6 tokens need 120; the scores"):
        TokenScores(tmp_path, N, L, 3)
    TokenScores(tmp_path, N, L, 0)
    with pytest.raises(UserError, match="has 120 bytes, 21 captions of 6 tokens need 126"):
        TokenScores(tmp_path, N + 1, L, 3)
    with pytest.raises(UserError, match="cannot be written"):
        TokenScores(tmp_path / "nowhere", N, L, 0)


def test_several_machines_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("model.token_scores.world_size", lambda: 4)
    monkeypatch.setattr("model.token_scores.local_world_size", lambda: 2)
    with pytest.raises(UserError, match="on a single machine only"):
        TokenScores(tmp_path, N, L, 0)
    assert not list(tmp_path.iterdir())
