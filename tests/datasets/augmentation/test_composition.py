"""Views made of operations: what is drawn for a sample, and that each image is changed by its own numbers."""

import numpy as np
import pytest
import torch

from datasets.augmentation import OPERATIONS, VIEWS, chosen_views, view_named
from datasets.augmentation.operations import MOST_NUMBERS, Erasing, Flip
from utils import UserError

SIZE = 40, 24
PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
COLOURS = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)


def draws(name: str, count: int) -> np.ndarray:
    return np.stack([view_named(name).draw(np.random.default_rng((3, n)), SIZE, SIZE) for n in range(count)])


def pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def places(numbers: np.ndarray) -> np.ndarray:
    return numbers.reshape(len(numbers), -1, 1 + MOST_NUMBERS)[:, :, 0].astype(int)


@pytest.mark.parametrize("name", ["pool", "pool_distinct", "simclr", "jitter+rotation+erasing", "flip+blur"])
def test_each_image_by_its_own_numbers_whatever_the_group(name: str):
    numbers, images = torch.from_numpy(draws(name, 13)), pixels(13)
    before = images.clone()
    together = view_named(name).apply(images, numbers, *COLOURS)
    alone = [view_named(name).apply(images[n : n + 1], numbers[n : n + 1], *COLOURS) for n in range(13)]
    assert torch.equal(images, before) and together.dtype == torch.float32
    difference = (together - torch.cat(alone)).abs().amax(dim=(1, 2, 3))
    assert difference.max() < (0.1 if "simclr" in name or "blur" in name else 1e-5)  # filters of a group are as long


@pytest.mark.parametrize("name", ["pool", "simclr"])
def test_no_image_gives_no_view(name: str):
    assert view_named(name).apply(pixels(0), torch.from_numpy(draws(name, 1)[:0]), *PLAIN).shape == (0, 3, *SIZE)


def test_the_pool_draws_two_of_six_with_replacement():
    pairs = places(draws("pool", 6000))
    assert pairs.shape == (6000, 2)
    named = [operation.probability for name, operation in OPERATIONS.items() if name != "blur"]
    for place, probability in enumerate(named):
        assert abs((pairs == place).mean() - probability / 6) < 0.015, place
    both = (pairs[:, 0] == pairs[:, 1]) & (pairs[:, 0] >= 0)
    assert abs(both.mean() - sum((p / 6) ** 2 for p in named)) < 0.015
    apart = places(draws("pool_distinct", 2000))
    assert not ((apart[:, 0] == apart[:, 1]) & (apart[:, 0] >= 0)).any()


def test_operations_follow_in_the_order_drawn():
    view = VIEWS["pool"]
    numbers = np.zeros((1, 2, 1 + MOST_NUMBERS), np.float32)
    names = list(OPERATIONS)
    numbers[0, :, 0] = names.index("erasing"), names.index("flip")
    numbers[0, 0, 1:5] = 2, 3, 10, 5
    images = pixels(1)
    ours = view.apply(images, torch.from_numpy(numbers.reshape(1, -1)), *PLAIN)
    expected = Flip().apply(Erasing().apply(images.float() / 255, numbers[:, 0, 1:]), numbers[:, 1, 1:])
    torch.testing.assert_close(ours, expected)
    black = ours[0, :, 2:12, SIZE[1] - 8 : SIZE[1] - 3]
    assert not black.any() and ours[0, :, 2:12, 3:8].any()


def test_black_is_black_before_normalising():
    numbers = np.zeros((1, 1, 1 + MOST_NUMBERS), np.float32)
    numbers[0, 0, 1:5] = 0, 0, *SIZE
    view = view_named("erasing+flip")
    numbers = np.concatenate([numbers, np.full_like(numbers, -1)], axis=1)
    ours = view.apply(pixels(1), torch.from_numpy(numbers.reshape(1, -1)), *COLOURS)
    expected = -torch.tensor(COLOURS[0]) / torch.tensor(COLOURS[1])
    torch.testing.assert_close(ours, expected.view(1, 3, 1, 1).expand(1, 3, *SIZE))


def test_which_view_every_field_has():
    assert chosen_views((), img_aug=True)["images"] == "irra"
    assert chosen_views((), img_aug=False)["images_mvs"] == "flip"
    given = chosen_views(("pool", "images_ss2=irra"), img_aug=False)
    assert (given["images"], given["images_mvs"], given["images_ss1"], given["images_ss2"]) == (
        *("pool", "pool", "simclr", "irra"),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("strong",), "--augment strong: nothing is called 'strong'; choose plain, flip"),
        (("flip+turn",), "nothing is called 'turn'"),
        (("picture=pool",), "no image field is called 'picture'; there are images"),
        (("pool", "images=irra"), "images is given twice"),
    ],
)
def test_bad_names(given: tuple[str, ...], message: str):
    with pytest.raises(UserError, match=message):
        chosen_views(given, img_aug=False)
