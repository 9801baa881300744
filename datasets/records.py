"""What a data set is made of once it has been read: images with an identity and captions, in three splits."""

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from utils import UserError

_NOT_IN_A_PATH = re.compile(r"[\0\ud800-\udfff]")


class DataError(UserError):
    """A data set that cannot be used as it is; the message says what is wrong where, and what to do."""


class ImageRecord(NamedTuple):
    """One photo and the sentences that describe it."""

    pid: int
    """identity; in train 0..n-1 without a gap, elsewhere as the annotation file has it"""
    image_id: int
    """position of the image in its split"""
    path: Path
    captions: tuple[str, ...]
    back_translations: tuple[str, ...] = ()
    """of each caption, "" where there is none; or nothing at all"""
    part: int = 0
    """which of the joined data sets it belongs to, see :attr:`Dataset.parts`"""


@dataclass(frozen=True)
class Dataset:
    """A data set with its three splits; ``val`` is empty where the publishers made none."""

    name: str
    train: tuple[ImageRecord, ...]
    val: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    annotation: Path | None = None
    """the file that it was read from"""
    caption_index: np.ndarray | None = field(default=None, compare=False)
    """(N,) int64, with label noise: the training pair whose caption each training pair has, in file order"""
    leaks: tuple[str, ...] = ()
    """identities and image files that two splits share, in words; a benchmark's reader refuses them"""
    parts: tuple[str, ...] = ()
    """names of the data sets that were joined to this one; empty for a single one"""
    more_files: tuple[Path, ...] = ()
    """what else it was read from: annotations of joined data sets, back translations, exchanged captions"""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it was read from, but for images."""
        return self.more_files if self.annotation is None else (self.annotation, *self.more_files)

    def split(self, name: str) -> tuple[ImageRecord, ...]:
        """The records of ``train``, ``val`` or ``test``."""
        if name not in ("train", "val", "test"):
            raise ValueError(f"split {name!r}: choose train, val or test")
        return getattr(self, name)

    def by_part(self, split: str) -> dict[str, tuple[ImageRecord, ...]]:
        """The records of a split by the name of the data set that they belong to."""
        records = self.split(split)
        if not self.parts:
            return {self.name: records}
        return {
            name: tuple(record for record in records if record.part == part) for part, name in enumerate(self.parts)
        }

    @property
    def num_train_ids(self) -> int:
        """How many identities the training split has."""
        return len({record.pid for record in self.train})


def counts(records: tuple[ImageRecord, ...]) -> tuple[int, int, int]:
    """(identities, images, captions) of a split."""
    return len({r.pid for r in records}), len(records), sum(len(r.captions) for r in records)


def relative_path(image: Any) -> str | None:
    """A path below a folder in its shortest spelling, so that ``a//b`` and ``./a/b`` count as the same image.

    None for anything that is no such path.
    """
    if isinstance(image, str) and not _NOT_IN_A_PATH.search(image):
        pure = PurePosixPath(image)
        if pure.parts and not pure.is_absolute() and ".." not in pure.parts:
            return str(pure)
    return None
