"""What to draw, and in which layout: the flags of the Mannequins."""

import re
from dataclasses import dataclass

from datasets.mannequins.people import LEVELS, SPLITS
from utils import UserError
from utils.options import opt

NAME = "Mannequins"


@dataclass(frozen=True)
class MannequinOptions:
    """What to draw."""

    mannequin_train_ids: int = opt(1500, "drawn identities for training")
    mannequin_val_ids: int = opt(100, "drawn identities for validation")
    mannequin_test_ids: int = opt(250, "drawn identities for testing")
    mannequin_images_per_id: str = opt("2-4", "images of each identity, a number or a range")
    mannequin_captions_per_image: int = opt(2, "captions of each image")
    mannequin_seed: int = opt(0, "another seed draws different people")
    mannequin_difficulty: str = opt(
        "medium", "look-alikes, vague captions, occlusion and bad light", choices=tuple(LEVELS)
    )
    mannequin_height: int = opt(256, "mean height of the images in pixels; they vary by a third")

    def __post_init__(self) -> None:
        least = {"train_ids": 0, "val_ids": 0, "test_ids": 0, "captions_per_image": 1, "seed": 0, "height": 32}
        for name, low in least.items():
            value = getattr(self, f"mannequin_{name}")
            if value < low:
                raise UserError(f"--mannequin_{name} {value}: expected at least {low}")
        if self.mannequin_height > 2048:
            raise UserError(f"--mannequin_height {self.mannequin_height}: expected at most 2048")
        if self.mannequin_difficulty not in LEVELS:
            raise UserError(f"--mannequin_difficulty {self.mannequin_difficulty!r}: choose one of {', '.join(LEVELS)}")
        low, high = self.image_range
        if not 1 <= low <= high:
            text = self.mannequin_images_per_id
            raise UserError(f"--mannequin_images_per_id {text!r}: expected a number from 1, or a range such as 2-4")

    @property
    def image_range(self) -> tuple[int, int]:
        """The fewest and the most images of an identity."""
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", self.mannequin_images_per_id)
        return (int(match[1]), int(match[2] or match[1])) if match else (0, 0)


@dataclass(frozen=True)
class Layout:
    """How a data set names its files, keys and identities."""

    file: str
    key: str
    first_id: int
    tokens: bool
    splits: tuple[str, ...]


LAYOUTS = {
    NAME: Layout("reid_raw.json", "file_path", 0, False, SPLITS),
    "CUHK-PEDES": Layout("reid_raw.json", "file_path", 1, True, SPLITS),
    "ICFG-PEDES": Layout("ICFG-PEDES.json", "file_path", 0, False, ("train", "test")),
    "RSTPReid": Layout("data_captions.json", "img_path", 0, False, SPLITS),
}
