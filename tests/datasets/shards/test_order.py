"""The order of an epoch: every sample as often as asked for, well mixed, local, and the same from any position on."""

import numpy as np
import pytest

from datasets.shards import order
from datasets.shards.order import ShardOrder, block_edges


def whole(made: ShardOrder, epoch: int) -> np.ndarray:
    return made.samples(epoch, 0, len(made))


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(order, "_WINDOW", 500)


EDGES = [np.arange(0, 2001, 10), np.array([0, 7, 20, 33, 100])]


def test_every_sample_as_often_as_the_mix_says():
    made = ShardOrder(EDGES, (1, 3), 1)
    assert len(made) == 2000 + 300
    for epoch in (1, 2, 7):
        assert np.bincount(whole(made, epoch)).tolist() == [1] * 2000 + [3] * 100
    half = ShardOrder(EDGES, (0.5, 0.25), 1)
    assert len(half) == 1025
    assert np.bincount(np.concatenate([whole(half, epoch) for epoch in (1, 2)]))[:2000].tolist() == [1] * 2000
    assert np.bincount(np.concatenate([whole(half, n) for n in range(5, 9)]))[2000:].tolist() == [1] * 100


def test_the_same_from_any_position_on():
    made = ShardOrder(EDGES, (1, 1.5), 1)
    for epoch in (1, 3):
        expected = whole(ShardOrder(EDGES, (1, 1.5), 1), epoch)
        for start in range(0, len(made), 97):
            assert np.array_equal(
                made.samples(epoch, start, min(start + 200, len(made))), expected[start : start + 200]
            )
    assert len(made.samples(1, 5, 5)) == 0


def test_epochs_and_seeds_differ():
    orders = [whole(ShardOrder(EDGES, (1, 1), seed), epoch) for seed in (1, 2) for epoch in (1, 2)]
    for number, one in enumerate(orders):
        assert all((one != other).mean() > 0.9 for other in orders[:number])


def test_windows_hold_some_blocks_of_all_folders_and_are_shuffled():
    made = ShardOrder(EDGES, (1, 1), 1)
    found = whole(made, 1)
    for start in range(0, 2000, 525):
        window = found[start : start + 525]
        blocks = np.unique(window[window < 2000] // 10)
        assert 48 <= len(blocks) <= 54  # whole blocks, but for the first and the last
        assert 15 <= (window >= 2000).sum() <= 35
        assert blocks.max() - blocks.min() > 150  # from everywhere
        assert abs(np.corrcoef(np.arange(len(window)), window)[0, 1]) < 0.2


def test_blocks_do_not_cross_shards():
    edges = block_edges(np.array([0, 5, 5, 12, 13]), 3)
    assert edges.tolist() == [0, 2, 5, 7, 9, 12, 13]
    assert block_edges(np.array([0, 4]), 100).tolist() == [0, 4]
