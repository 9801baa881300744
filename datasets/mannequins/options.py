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

    mannequin_train_ids: int = opt(1500, "drawn identities for training", least=0)
    mannequin_val_ids: int = opt(100, "drawn identities for validation", least=0)
    mannequin_test_ids: int = opt(250, "drawn identities for testing", least=0)
    mannequin_images_per_id: str = opt("2-4", "images of each identity, a number or a range")
    mannequin_captions_per_image: int = opt(2, "captions of each image", least=1)
    mannequin_seed: int = opt(0, "another seed draws different people", least=0, most=2**63 - 1)
    mannequin_difficulty: str = opt(
        "medium", "look-alikes, vague captions, occlusion and bad light", choices=tuple(LEVELS)
    )
    mannequin_height: int = opt(256, "mean height of the images in pixels; they vary by a third", least=32, most=2048)

    def __post_init__(self) -> None:
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
