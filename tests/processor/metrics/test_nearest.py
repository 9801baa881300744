"""The nearest gallery entries against a stable sort, and bad input."""

import pytest
import torch
import torch.nn.functional as F

from processor.metrics.nearest import rank_gallery
from utils import UserError


@pytest.mark.parametrize("k", [1, 7, 50, 300])
@pytest.mark.parametrize("block", [None, 1, 8])
def test_equals_a_stable_sort_with_ties_in_gallery_order(k: int, block: int | None):
    generator = torch.Generator().manual_seed(k)
    queries, gallery = (torch.randint(0, 2, (n, 4), generator=generator) - 0.5 for n in (20, 300))
    similarity = F.normalize(queries) @ F.normalize(gallery).T
    assert len(similarity.unique()) < 10
    order = similarity.sort(dim=1, descending=True, stable=True)
    scores, positions = rank_gallery(queries, gallery, k, block)
    assert torch.equal(scores, order.values[:, :k])
    assert torch.equal(positions, order.indices[:, :k])


def test_k_is_cut_to_the_gallery():
    scores, positions = rank_gallery(torch.eye(3), torch.eye(3), 10)
    assert scores.shape == positions.shape == (3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_ranked_in_float32(dtype: torch.dtype):
    features = torch.randn(40, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        scores, positions = rank_gallery(features, features, 3)
    assert scores.dtype == torch.float32
    assert torch.equal(positions[:, 0], torch.arange(40))
    torch.testing.assert_close(scores[:, 0], torch.ones(40))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(2, 4), torch.ones(2, 4), 0), ValueError, "k is 0"),
        ((torch.ones(2, 4), torch.ones(0, 4), 1), ValueError, "no gallery features"),
        ((torch.ones(2, 4), torch.ones(2, 5), 1), ValueError, "query features have size 4, gallery features 5"),
        ((torch.ones(2, 4), torch.full((2, 4), torch.nan), 1), UserError, "gallery features: row 0 is not finite"),
    ],
)
def test_bad_input(arguments: tuple, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        rank_gallery(*arguments)
