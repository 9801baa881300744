"""memory_soft and soft matching against loops over single pairs, with lists as long as there are neighbours."""

import math

import pytest
import torch
import torch.nn.functional as F

from model.losses.base import Sizes
from model.losses.itc1 import soft_loss
from model.losses.memory_soft import MemorySoft, MemorySoftOptions, find_neighbours, memory_soft_loss
from tests.helpers.views import views_of


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a / a.norm()) @ (b / b.norm())


def sdm_by_loops(images: list, texts: list, targets: list[list[float]]) -> torch.Tensor:
    """Both directions of the matching with targets as published: eps 1e-6, scale 50, mean over rows."""
    total = torch.zeros(())
    for rows, columns in ((images, texts), (texts, images)):
        for row, target in zip(rows, targets, strict=True):
            log_p = torch.log_softmax(torch.stack([50 * cosine(row, column) for column in columns]), 0)
            total = total + sum(
                lp.exp() * (lp - math.log(q + 1e-6)) for lp, q in zip(log_p, target, strict=True)
            ) / len(rows)
    return total


def softmax_over(labels: list[float | None]) -> list[float]:
    total = sum(math.exp(label) for label in labels if label is not None)
    return [0.0 if label is None else math.exp(label) / total for label in labels]


def memory_soft_by_loops(image_BD, text_BD, image_bank, text_bank, threshold, soft_scale):
    images, texts, anchors, labels = list(image_BD), list(text_BD), list(range(len(image_BD))), {}
    for i, image in enumerate(image_BD.detach()):
        found = sorted(((cosine(image, row).item(), n) for n, row in enumerate(image_bank)), reverse=True)[1:4]
        found = [(value, n) for value, n in found if value > threshold]
        shares = softmax_over([soft_scale, *(soft_scale * value for value, _ in found)])
        for (_, n), share in zip(found, shares[1:], strict=True):
            labels[i, len(images)] = 1 - share
            images.append(image_bank[n])
            texts.append(text_bank[n])
            anchors.append(i)
    targets = [
        softmax_over([labels.get((i, j), 1.0) if a == b else None for j, b in enumerate(anchors)])
        for i, a in enumerate(anchors)
    ]
    return sdm_by_loops(images, texts, targets), [anchors.count(i) - 1 for i in range(len(image_BD))]


def clustered(rows: int, dim: int, spread: float, generator: torch.Generator) -> torch.Tensor:
    """Features in groups, so that some have near neighbours and some do not."""
    centres = torch.randn(max(rows // 4, 1), dim, generator=generator)
    noise = torch.randn(rows, dim, generator=generator) * torch.linspace(0.05, spread, rows)[:, None]
    return centres[torch.arange(rows) % len(centres)] + noise


@pytest.mark.parametrize(("seed", "rows"), [(0, 40), (1, 17), (2, 3), (3, 1)])
@pytest.mark.parametrize("soft_scale", [1.0, 4.0])
def test_memory_soft_is_the_loop(seed: int, rows: int, soft_scale: float):
    generator = torch.Generator().manual_seed(seed)
    image_bank = 7 * clustered(rows, 16, 2.0, generator)
    text_bank = clustered(rows, 16, 2.0, generator)
    batch = min(rows, 12)
    image = (image_bank[:batch] + 0.1 * torch.randn(batch, 16, generator=generator)).requires_grad_()
    text = (text_bank[:batch] + 0.1 * torch.randn(batch, 16, generator=generator)).requires_grad_()
    expected, counts = memory_soft_by_loops(image, text, image_bank, text_bank, 0.6, soft_scale)
    if rows == 40:
        assert set(counts) == {0, 1, 2, 3}, "the test means to cover every number of neighbours"
    near = find_neighbours(image, image_bank, 0.6)
    assert near.is_near_BK.sum(dim=1).tolist() == counts
    loss = memory_soft_loss(image, text, near, image_bank, text_bank, soft_scale)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad(loss, (image, text))
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (image, text)), rtol=1e-4, atol=1e-5)


def test_soft_matching_is_the_loop():
    generator = torch.Generator().manual_seed(0)
    image, text = clustered(12, 16, 1.5, generator), clustered(12, 16, 1.5, generator)
    alike = [
        [cosine(image[i], image[j]) > 0.5 and cosine(text[i], text[j]) > 0.3 for j in range(12)] for i in range(12)
    ]
    assert 12 < sum(map(sum, alike)) < 144
    targets = [softmax_over([1.0 if i == j else 0.1 if alike[i][j] else None for j in range(12)]) for i in range(12)]
    expected = sdm_by_loops(list(image), list(text), targets)
    torch.testing.assert_close(soft_loss(image, text, 0.5, 0.3), expected, rtol=1e-5, atol=1e-5)


def test_banks_are_filled_and_then_follow():
    head = MemorySoft(MemorySoftOptions(alpha_mom=0.75), Sizes(4, 0, 0, 5, 0))
    first, second = torch.randn(2, 4), torch.randn(2, 4, requires_grad=True)
    views = views_of(first, -first, epoch=1, index=[3, 1])
    assert head(views).loss == 0
    head.after_step(views)
    assert torch.equal(head.image_bank[[3, 1]], first)
    assert not head.image_bank[[0, 2, 4]].any()
    views = views_of(second, -second, epoch=2, index=[1, 3])
    before = head.image_bank.clone()
    loss = head(views).loss
    assert torch.equal(head.image_bank, before), "the loss reads the bank as it was before this batch"
    loss.backward()
    head.after_step(views)
    torch.testing.assert_close(head.image_bank[[1, 3]], 0.75 * second.detach() + 0.25 * first.flip(0))
    torch.testing.assert_close(head.text_bank, -head.image_bank)
    assert not head.image_bank.requires_grad


def test_report_counts_neighbours_and_how_many_are_right():
    head = MemorySoft(MemorySoftOptions(id_threshod=0.5), Sizes(3, 0, 0, 4, 0))
    # pairs 0, 1 and 2 look alike, 3 looks like none of them
    features = F.normalize(torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [1, 0.2, 0], [0, 0, 1]]))
    fill = views_of(features, features, epoch=1, index=[0, 1, 2, 3])
    head(fill)
    head.after_step(fill)
    assert head.epoch_report(torch.zeros(4)) == "", "nothing is associated in the first epoch"
    head(views_of(features[:2], features[:2], epoch=2, index=[0, 1]))
    head(views_of(features[2:], features[2:], epoch=2, index=[2, 3]))
    report = head.epoch_report(torch.tensor([7, 7, 8, 9]))
    assert report.startswith("neighbours of 4 pairs: 1 with 0, 0 with 1, 3 with 2, 0 with 3; 33.3 % of these")
    assert head.epoch_report(torch.zeros(4)) == "", "every epoch counts anew"


def test_no_shape_depends_on_a_value():
    """On the meta device there are no values, so anything that would make the host wait for one fails."""
    image, text = (torch.randn(6, 8, device="meta", requires_grad=True) for _ in range(2))
    banks = [torch.randn(20, 8, device="meta") for _ in range(2)]
    loss = memory_soft_loss(image, text, find_neighbours(image, banks[0], 0.7), *banks, 1.0)
    loss.backward()
    assert loss.shape == ()
    assert image.grad.shape == (6, 8)
