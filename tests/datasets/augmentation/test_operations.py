"""Every operation, in batches, equals torchvision's function image by image; what is drawn has its distributions."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision import transforms as T
from torchvision.transforms import functional as F

from datasets.augmentation import OPERATIONS
from datasets.augmentation.operations import (
    MOST_NUMBERS,
    Blur,
    Crop,
    Erasing,
    Flip,
    Grayscale,
    Jitter,
    Operation,
    OriginalCrop,
    Rotation,
)
from tests.helpers.distributions import largest_gap

H, W = 48, 32
STRONG = Jitter(0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)


def drawn(operation: Operation, count: int, size=(H, W), original=(H, W)) -> np.ndarray:
    rows = np.zeros((count, MOST_NUMBERS), np.float32)
    for number, row in enumerate(rows):
        values = operation.draw(np.random.default_rng((7, number)), size, original)
        row[: len(values)] = values
    return rows


def images(count: int, smooth: bool = False) -> torch.Tensor:
    pixels = torch.rand((count, 3, H, W), generator=torch.Generator().manual_seed(0))
    return F.gaussian_blur(pixels, [7, 7], [2.0, 2.0]) if smooth else pixels


def jittered(image, row):
    order = list(itertools.permutations(range(4)))[int(row[0])]
    changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for step in order:
        image = changes[step](image, float(row[1 + step]))
    return image


REFERENCES = {
    Flip(): lambda image, row: F.hflip(image),
    Grayscale(): lambda image, row: F.rgb_to_grayscale(image, 3),
    STRONG: jittered,
    Rotation(15): lambda image, row: F.rotate(image, float(row[0]), fill=0),
    Crop(area=(0.2, 1.0)): lambda image, row: F.resized_crop(image, *map(int, row[:4]), [H, W], antialias=True),
    Erasing(1.0, (0.1, 0.2)): lambda image, row: F.erase(image, *map(int, row[:4]), torch.zeros(3, 1, 1)),
}


@pytest.mark.parametrize("operation", REFERENCES, ids=lambda each: type(each).__name__)
def test_equals_torchvision(operation: Operation):
    pixels, rows = images(24), drawn(operation, 24)
    before = pixels.clone()
    ours = operation.apply(pixels.clone(), rows)
    theirs = torch.stack([REFERENCES[operation](image, row) for image, row in zip(before, rows, strict=True)])
    assert ours.shape == theirs.shape and ours.min() >= 0 and ours.max() <= 1
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_jitter_without_hue_leaves_colours_on_their_circle():
    grey = torch.full((3, 3, H, W), 0.5)
    changed = OPERATIONS["jitter"].apply(grey, drawn(OPERATIONS["jitter"], 3))
    torch.testing.assert_close(changed[:, 0], changed[:, 1])
    assert not torch.allclose(changed, grey)


def test_blur_is_pillows_but_for_its_approximation():
    pixels = (images(6, smooth=True) * 255).round() / 255
    rows = np.zeros((6, MOST_NUMBERS), np.float32)
    rows[:, 0] = 0.1, 0.5, 0.8, 1.2, 1.6, 2.0
    ours = Blur().apply(pixels.clone(), rows)
    for image, result, row in zip(pixels, ours, rows, strict=True):
        theirs = F.to_tensor(F.to_pil_image(image).filter(ImageFilter.GaussianBlur(float(row[0]))))
        difference = 255 * (result - theirs).abs()
        assert difference.mean() < 1 and difference.max() < 6, row[0]  # grey levels; most at the border


def test_blur_of_each_image_is_its_own():
    pixels, rows = images(3), drawn(Blur(), 3)
    together = Blur().apply(pixels, rows)
    for place in range(3):
        alone = Blur().apply(pixels[place : place + 1], rows[place : place + 1])
        # the longest filter of a group is that of all; what it adds is below 0.3 % of the sum
        torch.testing.assert_close(together[place : place + 1], alone, atol=5e-3, rtol=0)


def test_numbers_of_the_pool_are_drawn_as_torchvisions():
    torch.manual_seed(0)
    count = 1500
    jitter = np.array([T.ColorJitter.get_params([0.9, 1.1], [0.9, 1.1], [0.9, 1.1], None)[1:4] for _ in range(count)])
    image = torch.zeros(3, 384, 128)
    crop = np.array([T.RandomResizedCrop.get_params(image, (0.9, 1.0), (3 / 4, 4 / 3)) for _ in range(count)])
    square_image = image[:, :128]
    square = np.array([T.RandomResizedCrop.get_params(square_image, (0.2, 1.0), (3 / 4, 4 / 3)) for _ in range(count)])
    box = np.array([T.RandomErasing.get_params(image, (0.1, 0.2), (0.3, 3.3), [0.0])[:4] for _ in range(count)])
    angle = np.array([[T.RandomRotation.get_params([-15.0, 15.0])] for _ in range(count)])
    size = (384, 128)
    for ours, theirs in (
        (drawn(OPERATIONS["jitter"], count, size)[:, 1:4], jitter),
        (drawn(OPERATIONS["crop"], count, size), crop),
        (drawn(Crop(area=(0.2, 1.0)), count, (128, 128)), square),
        (drawn(OPERATIONS["erasing"], count, size), box),
        (drawn(OPERATIONS["rotation"], count, size), angle),
    ):
        for a, b in zip(ours.T, theirs.T, strict=False):
            assert largest_gap(a, b) < 0.065  # Kolmogorov-Smirnov; 1.63 * sqrt(2 / 1500) = 0.06 at the 1 % level


def test_orders_of_jitter_are_equally_likely():
    orders = drawn(STRONG, 4800)[:, 0].astype(int)
    assert abs(np.bincount(orders, minlength=math.factorial(4)) / len(orders) - 1 / 24).max() < 0.012


def test_the_box_of_an_original_keeps_its_place_in_the_resized_image():
    original = (300, 100)
    theirs = drawn(Crop(area=(0.2, 1.0)), 300, original)[:, :4]
    ours = drawn(OriginalCrop(area=(0.2, 1.0)), 300, (H, W), original)[:, :4]
    scale = np.array([H / 300, W / 100] * 2)
    assert abs(ours - theirs * scale).max() <= 1.0
    assert (ours[:, :2] + ours[:, 2:] <= (H, W)).all() and (ours[:, 2:] >= 1).all()


def test_a_tiny_box_is_a_pixel_at_least():
    boxes = drawn(OriginalCrop(area=(0.2, 0.3)), 50, (2, 2), (500, 400))[:, :4]
    assert (boxes[:, 2:] >= 1).all() and (boxes[:, :2] + boxes[:, 2:] <= 2).all()


def test_views_of_a_file_on_its_side(tmp_path):
    from datasets.images.decode import ImageError, decode, upright_size

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert upright_size(tmp_path / "a.jpg") == decode(tmp_path / "a.jpg").size[::-1] == (30, 20)
    assert upright_size((tmp_path / "a.jpg").read_bytes(), "a") == (30, 20)
    with pytest.raises(ImageError, match="^a: the file is empty$"):
        upright_size(b"", "a")
