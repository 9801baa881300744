"""Batched views equal torchvision's pipeline given the same numbers, and the numbers have its distributions."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms as T

from datasets.augmentation import view_named
from datasets.augmentation.irra import NUMBERS, PAD
from datasets.augmentation.pixels import normalise
from datasets.images.decode import load_resized
from model.backbones.clip import CLIP
from model.backbones.spec import BackboneOptions
from tests.helpers.distributions import largest_gap
from tests.helpers.golden import core_params

H, W = 48, 20
SPEC = CLIP.load("tiny", BackboneOptions()).spec
CLIPS = SPEC.pixel_mean, SPEC.pixel_std
OTHER = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
"""mean and standard deviation of some other backbone"""


def draws(kind, count, height=H, width=W):
    view = view_named(kind)
    return np.stack([view.draw(np.random.default_rng((5, n)), (height, width), (0, 0)) for n in range(count)])


def apply(images, params, mean, std):
    return view_named("irra").apply(images, params, mean, std)


def one_by_one(image, params, mean, std):
    """torchvision's steps on a PIL image."""
    flip, top, left, *box = params.tolist()
    image = F.hflip(image) if flip else image
    image = F.crop(F.pad(image, 10), top, left, image.height, image.width)
    view = F.normalize(F.to_tensor(image), mean, std)
    return F.erase(view, *box, torch.tensor(mean)[:, None, None]) if box[2] * box[3] else view


@pytest.mark.parametrize("kind", ["plain", "flip", "irra"])
@pytest.mark.parametrize("size", [(H, W), (96, 32), (8, 5)])
@pytest.mark.parametrize("colours", [CLIPS, OTHER], ids=["CLIP", "other"])
def test_equals_torchvision(kind, size, colours):
    pixels = np.random.default_rng(0).integers(0, 256, (64, *size, 3), np.uint8)
    params = draws(kind, 64, *size)
    ours = apply(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(params), *colours)
    expected = torch.stack([one_by_one(Image.fromarray(p), q, *colours) for p, q in zip(pixels, params, strict=True)])
    assert ours.dtype == torch.float32
    assert torch.equal(ours, expected)


def test_plain_only_normalises_and_inputs_stay():
    images = torch.randint(0, 256, (4, 3, H, W), dtype=torch.uint8)
    before = images.clone()
    assert torch.equal(apply(images, torch.from_numpy(draws("plain", 4)), *CLIPS), normalise(images, *CLIPS))
    apply(images, torch.from_numpy(draws("irra", 4)), *CLIPS)
    assert torch.equal(images, before)


def test_no_image_gives_no_view():
    views = apply(torch.empty(0, 3, H, W, dtype=torch.uint8), torch.from_numpy(draws("irra", 1)[:0]), *CLIPS)
    assert views.shape == (0, 3, H, W) and views.dtype == torch.float32


def test_draw_is_a_function_of_its_generator():
    assert np.array_equal(draws("irra", 20), draws("irra", 20))
    assert draws("irra", 1).shape == (1, len(NUMBERS))


def test_distributions():
    count = 4000
    flip, top, left, *box = draws("irra", count).T
    assert abs(flip.mean() - 0.5) < 0.04
    for offset in (top, left):
        share = np.bincount(offset, minlength=2 * PAD + 1) / count
        assert len(share) == 2 * PAD + 1
        assert abs(share - 1 / 21).max() < 0.015
    assert abs((box[2] > 0).mean() - 0.5) < 0.04
    plain, only_flip = draws("plain", 10), draws("flip", count)
    assert (plain == [0, PAD, PAD, 0, 0, 0, 0]).all()
    assert abs(only_flip[:, 0].mean() - 0.5) < 0.04
    assert (only_flip[:, 1:] == plain[0, 1:]).all()


def test_erased_boxes_are_distributed_as_torchvisions():
    height, width, count = 384, 128, 1000
    ours = draws("irra", 2 * count, height, width)[:, 3:]
    ours = ours[ours[:, 2] > 0]
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = np.array([T.RandomErasing.get_params(image, (0.02, 0.4), (0.3, 3.3), [0.0])[:4] for _ in range(count)])
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert largest_gap(a, b) < 0.09  # Kolmogorov-Smirnov; 1.63 * sqrt(2 / 1000) = 0.073 at the 1 % level
    assert largest_gap(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]) < 0.09
    assert largest_gap(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]) < 0.09


def test_boxes_stay_inside():
    top, left, height, width = draws("irra", 3000)[:, 3:].T
    assert (top + height <= H).all()
    assert (left + width <= W).all()


@pytest.mark.parametrize("folder", core_params())
def test_golden_eval_view(folder, tmp_path):
    tensors = load_file(folder / "core.safetensors")
    names = [key.removesuffix("/out") for key in tensors if key.startswith("transform") and key.endswith("/out")]
    assert names
    for name in names:
        expected = tensors[f"{name}/out"]
        Image.fromarray(tensors[f"{name}/image_uint8_hwc"].numpy()).save(tmp_path / "a.png")
        resized = torch.from_numpy(load_resized(tmp_path / "a.png", tuple(expected.shape[1:])))
        assert (normalise(resized[None], *CLIPS)[0] - expected).abs().max() < 1e-6, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same_and_does_not_wait():
    images = torch.randint(0, 256, (16, 3, H, W), dtype=torch.uint8)
    params = torch.from_numpy(draws("irra", 16))
    on_gpu = images.cuda(), params.pin_memory()
    apply(*on_gpu, *CLIPS)  # copies the constants
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = apply(*on_gpu, *CLIPS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (views.cpu() - apply(images, params, *CLIPS)).abs().max() < 1e-6
