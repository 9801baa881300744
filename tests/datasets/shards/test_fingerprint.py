"""The perceptual hash: one picture in several files, against different pictures of drawn people."""

import io

import numpy as np
import pytest
from PIL import Image

from datasets.mannequins.draw import draw
from datasets.mannequins.options import MannequinOptions
from datasets.shards.fingerprint import MOST_DIFFERENT, KnownPictures, fingerprint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Image.Image]:
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder / "Mannequins", MannequinOptions(12, 0, 0, "2", mannequin_height=200), workers=1)
    return [Image.open(path).convert("RGB") for path in sorted(folder.rglob("*.jpg"))]


def bits(one: np.ndarray, other: np.ndarray) -> int:
    return sum(bin(int(value)).count("1") for value in one ^ other)


def compressed(picture: Image.Image, scale: float, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    size = (max(8, int(picture.width * scale)), max(8, int(picture.height * scale)))
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize(("scale", "quality"), [(1, 30), (0.6, 50), (2, 90)])
def test_resized_and_recompressed_files_are_the_same_picture(pictures, scale, quality):
    for picture in pictures:
        assert bits(fingerprint(picture), fingerprint(compressed(picture, scale, quality))) <= MOST_DIFFERENT
    stretched = [picture.resize((128, 384)) for picture in pictures]
    assert all(bits(fingerprint(a), fingerprint(b)) <= MOST_DIFFERENT for a, b in zip(pictures, stretched, strict=True))


def test_other_pictures_differ(pictures):
    hashes = [fingerprint(picture) for picture in pictures]
    nearest = min(bits(a, b) for n, a in enumerate(hashes) for b in hashes[:n])
    assert nearest > 1.5 * MOST_DIFFERENT


def test_the_most_similar_known_picture_is_named(pictures):
    hashes = [fingerprint(picture) for picture in pictures]
    known = KnownPictures([str(n) for n in range(5)], np.array(hashes[:5]))
    assert [known.like(each) for each in hashes[:7]] == ["0", "1", "2", "3", "4", None, None]
    assert KnownPictures([], np.empty((0, 4), np.uint64)).like(hashes[0]) is None
    plain = Image.new("RGB", (30, 60), (90, 90, 90))  # the sign of nothing
    assert known.like(fingerprint(plain)) is None
