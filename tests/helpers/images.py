"""Image files, good ones and such as nobody should decode."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def photo(height=60, width=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def png_header(width, height):
    """A PNG that claims a size and carries no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_bytes():
    buffer = io.BytesIO()
    photo().save(buffer, "JPEG")
    return buffer.getvalue()


def eps_bytes():
    buffer = io.BytesIO()
    photo().save(buffer, "EPS")
    return buffer.getvalue()
