"""Random views of training images, by the name that ``--augment`` uses; see :mod:`datasets.augmentation.view`."""

from collections.abc import Mapping, Sequence

from datasets.augmentation.composition import Composition
from datasets.augmentation.irra import IRRAView
from datasets.augmentation.operations import (
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
from datasets.augmentation.view import View
from utils import UserError

OPERATIONS: dict[str, Operation] = {
    "jitter": Jitter(brightness=0.1, contrast=0.1, saturation=0.1),
    "rotation": Rotation(degrees=15),
    "crop": Crop(area=(0.9, 1.0)),
    "grayscale": Grayscale(0.1),
    "flip": Flip(0.5),
    "erasing": Erasing(0.5, area=(0.1, 0.2)),
    "blur": Blur(0.5),
}
"""single operations, which ``--augment`` joins by '+'; all but the last are TBPS-CLIP's pool"""
_POOL = [operation for name, operation in OPERATIONS.items() if name != "blur"]
_SIMCLR = [
    OriginalCrop(area=(0.2, 1.0)),
    Jitter(0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    Grayscale(0.2),
    Blur(0.5),
    Flip(0.5),
]
VIEWS: dict[str, View] = {
    "plain": IRRAView(flip=False, vary=False),
    "flip": IRRAView(flip=True, vary=False),
    "irra": IRRAView(flip=True, vary=True),
    "pool": Composition(_POOL, choose=2, distinct=False),
    "pool_distinct": Composition(_POOL, choose=2),
    "simclr": Composition(_SIMCLR),
}
"""pool: two operations of six, with replacement as TBPS-CLIP (Cao et al., AAAI 2024) was published; simclr: its views
for self-supervision"""

IMAGE_FIELDS = ("images", "images_aug", "images_mvs", "images_ss1", "images_ss2")
"""batch fields that hold a view of the image"""


def view_named(name: str) -> View:
    """A view by its name, or operations joined by '+'.

    Raises:
        UserError: lists the names.
    """
    if name in VIEWS:
        return VIEWS[name]
    parts = name.split("+")
    if unknown := [part for part in parts if part not in OPERATIONS]:
        choices = f"choose {', '.join(VIEWS)}, or operations joined by '+': {', '.join(OPERATIONS)}"
        raise UserError(f"--augment {name}: nothing is called {unknown[0]!r}; {choices}")
    return Composition([OPERATIONS[part] for part in parts])


def chosen_views(given: Sequence[str], img_aug: bool) -> Mapping[str, str]:
    """The name of the view of every field in :data:`IMAGE_FIELDS`.

    Args:
        given: values of ``--augment``: NAME for ``images`` (and the second view of nitc), or FIELD=NAME.
        img_aug: what ``images`` is without them: irra instead of flip.

    Raises:
        UserError: no such field or view, or one is given twice.
    """
    chosen: dict[str, str] = {}
    for value in given:
        field, equals, name = value.partition("=")
        field, name = (field, name) if equals else ("images", field)
        if field not in IMAGE_FIELDS:
            raise UserError(
                f"--augment {value}: no image field is called {field!r}; there are {', '.join(IMAGE_FIELDS)}"
            )
        if field in chosen:
            raise UserError(f"--augment {' '.join(given)}: {field} is given twice")
        view_named(name)
        chosen[field] = name
    images = chosen.get("images", "irra" if img_aug else "flip")
    defaults = {"images": images, "images_aug": "irra", "images_mvs": images}
    return {**dict.fromkeys(IMAGE_FIELDS, "simclr"), **defaults, **chosen}
