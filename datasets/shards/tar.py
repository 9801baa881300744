"""One shard: a tar file in the WebDataset convention, written and read.

A record is ``KEY.jpg`` (or another image format), ``KEY.json`` with ``captions``, ``source`` and, where the annotation
has one, ``id``; and ``KEY.txt`` with the first caption, which is what open_clip's training reads.
Shape letters: N images, C captions.
"""

import hashlib
import json
import reprlib
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from datasets.annotations import DataError
from utils.files import file_sha256, replacing

_FORMATS = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"P": "ppm",
}
"""the first bytes of a file to the suffix of its format, for those that images/decode.py reads"""
_IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")


class ShardRecord(NamedTuple):
    """What is written of an image."""

    key: str
    image: bytes
    captions: list[str]
    source: str
    pid: int | str | None


class ShardContent(NamedTuple):
    """What a shard holds and where, images aside; see :mod:`datasets.shards.index` for its use."""

    offset_N: np.ndarray
    """(N,) int64, of the image's first byte in the file"""
    size_N: np.ndarray
    """(N,) int64, bytes of the image"""
    caption_count_N: np.ndarray
    """(N,) int64"""
    text_size_C: np.ndarray
    """(C,) int64, bytes of every caption in UTF-8"""
    text: bytes
    """all captions one after another"""
    pids: list[int | str | None]
    """N identities, as the annotation has them"""
    bytes: int
    """of the file"""
    sha256: str
    """of the file"""

    def save(self, path: Path, **more: Any) -> None:
        """Write a file that :meth:`load` reads, whole or not at all; ``more`` can be written as JSON."""
        head = {"pids": self.pids, "bytes": self.bytes, "sha256": self.sha256, **more}
        arrays = {name: getattr(self, name) for name in ("offset_N", "size_N", "caption_count_N", "text_size_C")}
        with replacing(path) as file:
            np.savez(file, head=_as_array(json.dumps(head).encode()), text=_as_array(self.text), **arrays)

    @classmethod
    def load(cls, path: Path) -> "ShardContent":
        """What :meth:`save` wrote."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file if name not in ("head", "text")}
            text = file["text"].tobytes()
        head = cls.load_head(path)
        return cls(**arrays, text=text, **{name: head[name] for name in ("pids", "bytes", "sha256")})

    @staticmethod
    def load_head(path: Path) -> dict[str, Any]:
        """What :meth:`save` wrote as JSON."""
        with np.load(path) as file:
            return json.loads(file["head"].tobytes())


def _as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def write_shard(path: Path, records: Iterable[ShardRecord]) -> ShardContent:
    """Write a shard, whole or not at all. The same records give the same bytes.

    Returns:
        what :func:`scan_shard` would find in it.

    Raises:
        FileError: it cannot be written.
    """
    found, digest = _Found(), hashlib.sha256()
    with replacing(path) as file:

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        for record in records:
            about = {"captions": record.captions, "source": record.source}
            if record.pid is not None:
                about["id"] = record.pid
            image = _member(f"{record.key}.{image_format(record.image)}", record.image)
            found.add(file.tell() + tarfile.BLOCKSIZE, len(record.image), record.captions, record.pid)
            write(image)
            write(_member(f"{record.key}.json", json.dumps(about, ensure_ascii=False).encode()))
            write(_member(f"{record.key}.txt", record.captions[0].encode()))
        write(bytes(2 * tarfile.BLOCKSIZE))
        size = file.tell()
    return found.content(size, digest.hexdigest())


def image_format(data: bytes) -> str:
    """The suffix for the content of an image file."""
    return next((suffix for start, suffix in _FORMATS.items() if data.startswith(start)), "jpg")


def _member(name: str, data: bytes) -> bytes:
    """A file of an archive in the ustar format, a tenth of whose cost is that of :class:`tarfile.TarInfo`."""
    head = b"".join(
        (
            name.encode().ljust(100, b"\0"),
            b"0000644\0" + 2 * b"0000000\0",
            b"%011o\0" % len(data),
            b"0" * 11 + b"\0",
        )
    )
    tail = (b"0" + bytes(100) + b"ustar\x0000").ljust(tarfile.BLOCKSIZE - len(head) - 8, b"\0")
    checksum = b"%06o\0 " % (sum(head) + sum(tail) + 8 * ord(" "))
    return b"".join((head, checksum, tail, data, bytes(-len(data) % tarfile.BLOCKSIZE)))


class _Found:
    """What a shard holds, record by record."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int]] = []
        self._counts: list[int] = []
        self._texts: list[bytes] = []
        self._pids: list[int | str | None] = []

    def add(self, offset: int, size: int, captions: list[str], pid: int | str | None) -> None:
        self._places.append((offset, size))
        self._counts.append(len(captions))
        self._texts += [text.encode() for text in captions]
        self._pids.append(pid)

    def content(self, size: int, sha256: str) -> ShardContent:
        place_N2 = np.array(self._places, np.int64).reshape(-1, 2)
        return ShardContent(
            place_N2[:, 0],
            place_N2[:, 1],
            np.array(self._counts, np.int64),
            np.array([len(text) for text in self._texts], np.int64),
            b"".join(self._texts),
            self._pids,
            size,
            sha256,
        )


def scan_shard(path: Path) -> ShardContent:
    """Read everything of a shard but the images. Any tar file in the convention will do, whoever wrote it.

    Raises:
        DataError: the file is cut off or otherwise no tar file; a key is there twice, has no image or no captions.
    """
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise DataError(f"{path}: no such shard")
    scan, end = _Scan(path), 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # which would grow with the file
                if member.isfile():
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError(f"{member.name} goes beyond its end")
                    scan.add(member, tar.fileobj)
                    end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            tar.fileobj.seek(end)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("no block of zeros at its end")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: cut off or damaged ({error}); fetch it again, or import into a new folder") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return scan.content(size)


class _Scan:
    """The records of a file so far. The members of a record stand beside each other, in any order."""

    def __init__(self, path: Path) -> None:
        self._path, self._key = path, ""
        self._image: tuple[int, int] | None = None
        self._about: dict[str, Any] | None = None
        self._keys: set[str] = set()
        self._found = _Found()

    def add(self, member: tarfile.TarInfo, file: BinaryIO) -> None:
        folder, slash, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")  # the convention: a key ends at the first dot
        key, suffix = folder + slash + stem, suffix.lower()
        if key != self._key:
            self._finish()
            if key in self._keys:
                raise DataError(f"{self._path}: key {key} is there twice; every record needs one of its own")
            self._key = key
            self._keys.add(key)
        if suffix in _IMAGES:
            if self._image is not None:
                raise DataError(f"{self._path}: key {key} has two images; every record needs a key of its own")
            self._image = (member.offset_data, member.size)
        elif suffix == "json":
            at = file.tell()
            file.seek(member.offset_data)
            self._about = self._parsed(file.read(member.size))
            file.seek(at)

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            about = json.loads(data)
        except ValueError as error:
            raise DataError(f"{self._path}: {self._key}.json is not JSON ({error})") from None
        captions = about.get("captions") if isinstance(about, dict) else None
        if not isinstance(captions, list) or not captions or not all(isinstance(text, str) for text in captions):
            shown = reprlib.repr(about)
            raise DataError(f"{self._path}: {self._key}.json holds {shown}, expected a list of texts as 'captions'")
        return about

    def _finish(self) -> None:
        if self._key:
            for what, there in (("image", self._image), ("KEY.json with captions", self._about)):
                if there is None:
                    raise DataError(f"{self._path}: key {self._key} has no {what}; every record needs both")
            self._found.add(*self._image, self._about["captions"], self._about.get("id"))
        self._image = self._about = None

    def content(self, size: int) -> ShardContent:
        self._finish()
        return self._found.content(size, file_sha256(self._path))
