"""From an image file to pixels.

How unusual files are read, in the order of the steps:
- JPEG, PNG, BMP, GIF, WebP, TIFF and PPM only. Other formats are refused: some (EPS) run a program to be decoded.
- More than ``MAX_PIXELS`` pixels: refused before decoding (a decompression bomb, or a scan nobody meant to put here).
- Truncated, empty or otherwise broken: refused, even where the first rows could be shown.
- 16-bit greyscale is scaled to 8 bits, ``round(value / 257)``; plain conversion would clip it to white. Images of
  32-bit integers beyond 65535 or of floating point have no known range and are refused.
- Everything else becomes RGB as ``Image.convert("RGB")`` does it: CMYK is converted, transparency is dropped (the
  colour stored under transparent pixels shows), of an animation the first picture is taken.
- An EXIF orientation is applied, so that photos from a phone stand upright. Benchmark images carry none.

JPEG's draft mode (decoding at a fraction of the size) is not used: its pixels differ.
"""

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from datasets.parallel import chunked, run_chunks
from utils import UserError
from utils.files import first_line

MAX_PIXELS = 2**26
_ON_ITS_SIDE = (5, 6, 7, 8)
"""values of the EXIF orientation by which rows are columns"""
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")


class ImageError(UserError):
    """An image that cannot be used; the message is one line, the path and the reason."""

    def __init__(self, message: str) -> None:
        # A data loader raises a worker's error again with the worker's whole traceback as the message, of which the
        # last line is ours.
        super().__init__(message.rstrip().rsplit("ImageError: ", 1)[-1])


def decode(path: Path) -> Image.Image:
    """Read an image file as an upright 8-bit RGB image; see the module's docstring for unusual files.

    Raises:
        ImageError: names the path and the reason.
    """
    # Asked first because opening a pipe or a device would wait forever.
    if not path.is_file():
        raise ImageError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        return _upright(path)
    except Exception as error:  # a broken file makes Pillow raise nearly anything, SyntaxError included
        raise ImageError(f"{path}: {_reason(error, _is_empty(path))}") from None


def upright_size(source: Path | bytes, name: object = None) -> tuple[int, int]:
    """(height, width) of what :func:`decode` gives, from the head of a file or of its content.

    Raises:
        ImageError: gives the reason after ``name``, without one the path.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as image:
            orientation = 1
            with suppress(Exception):
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return (image.width, image.height) if orientation in _ON_ITS_SIDE else (image.height, image.width)
    except Exception as error:
        is_empty = not source if isinstance(source, bytes) else _is_empty(source)
        raise ImageError(f"{name or source}: {_reason(error, is_empty)}") from None


def decode_bytes(data: bytes, name: str) -> Image.Image:
    """The same for the content of an image file.

    Raises:
        ImageError: gives the reason after ``name``.
    """
    try:
        return _upright(io.BytesIO(data))
    except Exception as error:
        raise ImageError(f"{name}: {_reason(error, not data)}") from None


def _upright(source: Path | io.BytesIO) -> Image.Image:
    with Image.open(source, formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than the {MAX_PIXELS} allowed")
        image.load()
        with suppress(Exception):  # unreadable EXIF says nothing about the pixels
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


def _is_empty(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == 0


def _reason(error: Exception, empty: bool) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "the file is empty" if empty else "not an image in a supported format"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit greyscale has no known range; save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point greyscale has no known range; save it with 8 or 16 bits")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")  # the same pixels as the direct way, without Pillow's warning
    return image.convert("RGB")


def load_resized(path: Path, size: tuple[int, int], resize_filter: str = "bilinear") -> np.ndarray:
    """An image file as uint8 (3, H, W), resized to ``size`` = (H, W) with antialias, as torchvision's Resize does.

    ``resize_filter``: bilinear or bicubic.

    Raises:
        ImageError: names the path and the reason.
    """
    return resized(decode(path), size, resize_filter)


def resize_picture(picture: Image.Image, size: tuple[int, int], resize_filter: str = "bilinear") -> np.ndarray:
    """The same for an image in memory: the pixels that the file gives which it was opened from.

    Raises:
        ImageError: it cannot be read, or not be converted to 8-bit RGB.
    """
    try:
        upright = picture
        with suppress(Exception):
            upright = ImageOps.exif_transpose(picture)
        return resized(_to_rgb(upright), size, resize_filter)
    except Exception as error:
        shown = f"{picture.mode} image of {picture.width} x {picture.height} pixels"
        raise ImageError(f"{shown}: {first_line(error)}") from None


def resized(image: Image.Image, size: tuple[int, int], resize_filter: str = "bilinear") -> np.ndarray:
    """An RGB image as uint8 (3, H, W) of ``size`` = (H, W)."""
    height, width = size
    pixels_HWC = np.asarray(image.resize((width, height), Image.Resampling[resize_filter.upper()]))
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))


def verify_images(paths: Sequence[Path], workers: int) -> dict[Path, str]:
    """Decode every file in ``workers`` processes, with a progress bar; the reasons of those that cannot be decoded."""
    faults: dict[Path, str] = {}
    for found in run_chunks(_faults_of, chunked(paths), workers, "verifying images"):
        faults.update(found)
    return faults


def _faults_of(paths: Sequence[Path]) -> dict[Path, str]:
    faults = {}
    for path in paths:
        try:
            decode(path)
        except ImageError as error:
            faults[path] = str(error)
    return faults
