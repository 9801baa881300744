"""Blocks of similarities: every one once, whatever their size, the threads and the settings of the process."""

import pytest
import torch
import torch.nn.functional as F

from processor.metrics.blocks import CHUNK, for_each_block, full_float32
from processor.metrics.nearest import rank_gallery


@pytest.mark.parametrize("block", [None, 1, 3, 10, 1000])
@pytest.mark.parametrize("gallery_size", [1, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_similarity_comes_once(block: int | None, gallery_size: int, threads: int):
    generator = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(10, 6, generator=generator), torch.randn(gallery_size, 6, generator=generator)
    seen, count = torch.zeros(10, gallery_size), torch.zeros(10)

    def work(start: int, similarity_BG: torch.Tensor) -> None:
        rows = slice(start, start + len(similarity_BG))
        seen[rows] += similarity_BG
        count[rows] += 1
        similarity_BG.fill_(torch.nan)  # which it may

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for_each_block(queries, gallery, work, block)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert count.tolist() == [1] * 10
    torch.testing.assert_close(seen, F.normalize(queries) @ F.normalize(gallery).T)


def test_a_block_holds_no_more_queries_than_asked_for():
    sizes = []
    for_each_block(torch.ones(10, 2), torch.ones(4, 2), lambda start, block_BG: sizes.append(len(block_BG)), 3)
    assert sum(sizes) == 10 and max(sizes) <= 3


def test_no_query_in_a_block_is_refused():
    with pytest.raises(ValueError, match="block is 0"):
        for_each_block(torch.ones(2, 2), torch.ones(2, 2), print, 0)


def test_global_settings_neither_matter_nor_change():
    features = torch.randn(300, 64, generator=torch.Generator().manual_seed(6))
    expected, threads = rank_gallery(features, features, 5), torch.get_num_threads()
    torch.set_float32_matmul_precision("medium")
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            scores, positions = rank_gallery(features, features, 5)
            assert torch.get_num_threads() == number
            assert torch.equal(positions, expected[1])
            torch.testing.assert_close(scores, expected[0], rtol=0, atol=1e-6)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(threads)


def test_coarse_products_are_off_inside_only():
    with full_float32():
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.get_float32_matmul_precision() == "highest"
