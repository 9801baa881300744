"""Decoding: unusual files give documented pixels, broken ones a clear error."""

import io
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch._utils import ExceptionWrapper
from torchvision import transforms as T

from datasets.images import decode as images
from datasets.images.decode import ImageError, decode, load_resized, verify_images
from tests.helpers.images import eps_bytes, jpeg_bytes, photo, png_header
from utils import UserError

# Pillow also warns of what it is about to refuse, or of metadata that nobody asked for.
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore:::PIL")


@pytest.mark.parametrize("source", [(173, 71), (96, 32), (400, 150), (20, 9)])
def test_resized_as_torchvision(source, tmp_path):
    path = tmp_path / "a.jpg"
    photo(*source).save(path)
    expected = T.PILToTensor()(T.Resize((96, 32))(Image.open(path).convert("RGB")))
    ours = load_resized(path, (96, 32))
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    assert torch.equal(torch.from_numpy(ours), expected)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_modes_convert_as_pillow(mode, tmp_path):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    photo().convert(mode).save(path)
    expected = Image.open(path).convert("RGB")
    assert decode(path).mode == "RGB"
    assert np.array_equal(decode(path), expected)


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = decode(tmp_path / "a.jpg").getpixel((4, 4))
    assert red > 240
    assert green < 15
    assert blue < 15


def test_palette_with_transparency_drops_it_without_a_warning(tmp_path, recwarn):
    image = photo().quantize(8)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128] + [255] * 6))
    assert np.array_equal(decode(tmp_path / "a.png"), image.convert("RGB"))
    assert not recwarn.list


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled(suffix, tmp_path):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 16 16 65535\n" + ramp.astype(">u2").tobytes())
    else:
        Image.fromarray(ramp).save(path)
    assert np.array_equal(np.asarray(decode(path))[..., 1].ravel(), np.arange(256))


def test_ranges_that_are_unknown(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "int.tif")
    with pytest.raises(ImageError, match="floating-point"):
        decode(tmp_path / "float.tif")
    with pytest.raises(ImageError, match="32-bit"):
        decode(tmp_path / "int.tif")


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo().save(tmp_path / "a.png", exif=exif)
    turned = orientation in (5, 6, 7, 8)
    assert decode(tmp_path / "a.png").size == ((60, 40) if turned else (40, 60))
    if orientation == 6:  # the camera was turned: the left column of the stored picture is the top row
        assert np.array_equal(np.asarray(decode(tmp_path / "a.png"))[0], np.asarray(photo())[::-1, 0])


def test_broken_exif_is_ignored(tmp_path):
    photo().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(tmp_path / "a.jpg").size == (40, 60)


BROKEN = {
    "empty": (lambda: b"", "the file is empty"),
    "text": (lambda: b"<html>404</html>", "not an image in a supported format"),
    "truncated": (lambda: jpeg_bytes()[:-200], "truncated"),
    "header only": (lambda: jpeg_bytes()[:300], "(?i)truncated"),
    "bomb": (lambda: png_header(9000, 9000), "9000 x 9000 pixels, more than"),
    "big bomb": (lambda: png_header(60000, 60000), "decompression bomb"),
    "no pixels": (lambda: png_header(40, 60), "truncated"),
    "runs a program": (eps_bytes, "not an image in a supported format"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken(case, tmp_path):
    make, reason = BROKEN[case]
    path = tmp_path / "a.jpg"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=reason) as caught:
        decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in (
        (tmp_path / "a.jpg", "no such file"),
        (tmp_path, "not a file"),
        (tmp_path / "pipe.jpg", "not a"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode(path)


def test_random_damage_never_escapes(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a"
    for suffix in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"):
        buffer = io.BytesIO()
        photo(24, 16).save(buffer, suffix)
        for _ in range(40):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[rng.integers(0, len(data), 5)] = rng.integers(0, 256, 5)
            path.write_bytes(data.tobytes()[: rng.integers(1, len(data) + 1)])
            try:
                assert load_resized(path, (8, 4)).shape == (3, 8, 4)
            except ImageError as error:
                assert str(path) in str(error)


def test_error_survives_a_data_loader(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    try:
        load_resized(tmp_path / "a.jpg", (8, 4))
    except ImageError:
        from_worker = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(ImageError) as caught:
        from_worker.reraise()
    assert str(caught.value) == f"{tmp_path / 'a.jpg'}: the file is empty"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_verify(workers, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(70)]
    for path in paths:
        path.write_bytes(jpeg_bytes())
    paths[40].write_bytes(b"")
    paths[50].unlink()
    faults = verify_images(paths, workers)
    assert set(faults) == {paths[40], paths[50]}
    assert "the file is empty" in faults[paths[40]]
    assert "no such file" in faults[paths[50]]


def test_dying_worker_is_reported(tmp_path, monkeypatch):
    def die(path):
        os._exit(9)

    monkeypatch.setattr(images, "decode", die)
    who = r"(worker process \d+ \(exit code 9\)|a worker process)"
    with pytest.raises(UserError, match=rf"verifying images: {who}.* died"):
        verify_images([tmp_path] * 100, 2)
