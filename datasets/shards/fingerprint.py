"""Whether two image files show the same picture, whatever their size and compression: a perceptual hash.

The hash is the sign of the low frequencies of the discrete cosine transform of the brightness, as in pHash (Zauner,
2010), with 256 bits rather than 64, because person images look alike and millions of them meet thousands.
Shape letters: N pictures, W words of a hash.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.annotations import DataError, first_few
from datasets.custom import load as load_folder
from datasets.images.decode import ImageError, decode
from datasets.parallel import chunked, run_chunks

_SIDE, _LOW = 64, 16
MOST_DIFFERENT = 32
"""bits of 256 in which two files of one picture may differ; docs/pretraining.md says what was measured"""


def fingerprint(image: Image.Image) -> np.ndarray:
    """(4,) uint64: the 256 bits of a picture."""
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    low = _cosines() @ np.asarray(grey, np.float32) @ _cosines().T
    return np.packbits(low > np.median(low)).view(np.uint64)


@functools.cache
def _cosines() -> np.ndarray:
    """(_LOW, _SIDE): the first rows of a discrete cosine transform, DCT-II."""
    place = (2 * np.arange(_SIDE) + 1) * np.arange(_LOW)[:, None]
    return np.cos(np.pi / (2 * _SIDE) * place).astype(np.float32)


class KnownPictures:
    """Pictures that must not be among others."""

    def __init__(self, names: Sequence[str], hash_NW: np.ndarray) -> None:
        """``hash_NW``: (N, 4) uint64, of :func:`fingerprint`."""
        self.names, self._hash_NW = tuple(names), hash_NW

    def like(self, hash_W: np.ndarray) -> str | None:
        """The name of the most similar picture, if it is the same within :data:`MOST_DIFFERENT` bits."""
        if not self.names:
            return None
        different_N = np.bitwise_count(self._hash_NW ^ hash_W).sum(axis=1)
        nearest = int(different_N.argmin())
        return self.names[nearest] if different_N[nearest] <= MOST_DIFFERENT else None


def test_images(roots: Sequence[Path]) -> list[Path]:
    """The images of the val and test splits of data sets, in any form that ``--dataset_name Custom`` reads.

    Raises:
        DataError: a folder is no data set.
    """
    found: set[Path] = set()
    for root in roots:
        if not root.is_dir():
            raise DataError(f"--exclude_like {root}: no such folder; name the folder that holds an annotation file")
        dataset = load_folder(root, _no_options)
        found |= {record.path for split in ("val", "test") for record in dataset.split(split)}
    return sorted(found)


def known_pictures(paths: Sequence[Path], workers: int) -> KnownPictures:
    """Pictures in files, from so many processes. Raises DataError if some cannot be read."""
    found = dict(pair for pairs in run_chunks(_fingerprints, chunked(paths), workers, "test images") for pair in pairs)
    if faults := [value for value in found.values() if isinstance(value, str)]:
        raise DataError(f"--exclude_like: {len(faults)} test images cannot be read: {first_few(faults)}; restore them")
    return KnownPictures([str(path) for path in found], np.array([*found.values()], np.uint64).reshape(-1, 4))


def _no_options(group: type) -> None:
    raise AssertionError(f"a folder needs no {group}")


def _fingerprints(paths: Sequence[Path]) -> list[tuple[Path, np.ndarray | str]]:
    return [(path, _fingerprint_or_fault(path)) for path in paths]


def _fingerprint_or_fault(path: Path) -> np.ndarray | str:
    try:
        return fingerprint(decode(path))
    except ImageError as error:
        return str(error)
