"""Random access to a folder of shards: where every image and caption is, in files that are mapped, not read.

The index is ``INDEX/index.json`` and flat arrays beside it. Opening it costs no more for millions of images than for
hundreds, and processes share its pages. Shape letters: N images, C captions, S shards.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
from PIL import Image

from datasets.annotations import DataError
from datasets.images.decode import ImageError, decode_bytes, upright_size
from datasets.shards.tar import ShardContent
from utils.files import new_folder

INDEX = "index"
"""folder in a folder of shards"""
_VERSION = 1
_ARRAYS = {"offset": "<i8", "size": "<u4", "pid": "<i8", "caption_start": "<i8", "text_start": "<i8"}
"""(N,), (N,), (N,), (N + 1,) and (C + 1,); a pid is -1 where the annotation has none"""
_TEXT = "text"
_OPEN_FILES = 64
"""shards that a process keeps open"""


def write_index(folder: Path, contents: Iterable[tuple[str, ShardContent]], about: Mapping[str, Any]) -> None:
    """Make the index of the shards in ``folder``.

    Args:
        folder: of the shards.
        contents: the file name of every shard, in their order, and what it holds; used up one by one.
        about: what else ``index.json`` says.

    Raises:
        UserError: it cannot be written.
    """
    shutil.rmtree(folder / INDEX, ignore_errors=True)
    with new_folder(folder / INDEX, "index") as target:
        shards, pid_numbers, without_id, captions, text_bytes = [], {}, 0, 0, 0
        files = {name: (target / name).open("wb") for name in (*_ARRAYS, _TEXT)}
        try:
            for name in ("caption_start", "text_start"):
                files[name].write(np.zeros(1, _ARRAYS[name]).tobytes())
            for name, content in contents:
                shards.append([name, len(content.size_N), content.bytes, content.sha256])
                pids = [-1 if pid is None else pid_numbers.setdefault(pid, len(pid_numbers)) for pid in content.pids]
                parts = {
                    "offset": content.offset_N,
                    "size": content.size_N,
                    "pid": pids,
                    "caption_start": captions + np.cumsum(content.caption_count_N),
                    "text_start": text_bytes + np.cumsum(content.text_size_C),
                }
                for array, values in parts.items():
                    files[array].write(np.asarray(values).astype(_ARRAYS[array]).tobytes())
                files[_TEXT].write(content.text)
                without_id += pids.count(-1)
                captions += len(content.text_size_C)
                text_bytes += len(content.text)
        finally:
            for file in files.values():
                file.close()
        counts = {"images": sum(shard[1] for shard in shards), "captions": captions, "text_bytes": text_bytes}
        counts |= {"identities": len(pid_numbers), "without_id": without_id}
        (target / "index.json").write_text(json.dumps({"version": _VERSION, **counts, "shards": shards, **about}))


class ShardIndex:
    """The images and captions of a folder of shards. Can be sent to other processes; each maps the files for itself."""

    def __init__(self, folder: Path) -> None:
        """Open the index of ``folder``.

        Raises:
            DataError: there is none, or it is damaged, or a shard has another size than when the index was made.
        """
        self.folder = folder
        self.about = _read_about(folder)
        self.images: int = self.about["images"]
        self.captions: int = self.about["captions"]
        self.identities: int = self.about["identities"]
        """those that the annotation has"""
        self.num_ids: int = self.identities + (self.images if self.about["without_id"] else 0)
        """numbers of identities, with one for every image where some images have none in the annotation"""
        self.shards = [shard[0] for shard in self.about["shards"]]
        self.first_S = np.cumsum([0, *(shard[1] for shard in self.about["shards"])])
        """(S + 1,) number of the first image of every shard; at the end N"""
        for name, _, size, _ in self.about["shards"]:
            _check_size(folder / name, size, "fetch it again, or make the index again: python -m datasets.shards index")
        self._map()

    def _map(self) -> None:
        rows = dict.fromkeys(("offset", "size", "pid"), self.images)
        rows |= {"caption_start": self.images + 1, "text_start": self.captions + 1}
        path = self.folder / INDEX
        remedy = "make it again: python -m datasets.shards index"
        for name, kind in _ARRAYS.items():
            _check_size(path / name, rows[name] * np.dtype(kind).itemsize, remedy)
        _check_size(path / _TEXT, self.about["text_bytes"], remedy)
        maps = {name: _mapped(path / name, kind) for name, kind in _ARRAYS.items()}
        self.offset_N, self.size_N, self.pid_N = maps["offset"], maps["size"], maps["pid"]
        self.caption_start_N, self._text_start_C = maps["caption_start"], maps["text_start"]
        self._text = _mapped(path / _TEXT, "u1")
        self._files: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        gone = ("offset_N", "size_N", "pid_N", "caption_start_N", "_text_start_C", "_text", "_files")
        return {name: value for name, value in self.__dict__.items() if name not in gone}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def __len__(self) -> int:
        return self.images

    def caption(self, number: int) -> str:
        """Caption ``number`` of C."""
        start, stop = self._text_start_C[number : number + 2].tolist()
        return self._text[start:stop].tobytes().decode()

    def captions_of(self, image: int) -> list[str]:
        """The captions of an image."""
        return [self.caption(number) for number in range(*self.caption_start_N[image : image + 2].tolist())]

    def image_of_caption(self, number: int) -> int:
        """The image that caption ``number`` of C belongs to."""
        return int(np.searchsorted(self.caption_start_N, number, "right")) - 1

    def identity(self, image: int) -> int:
        """The identity of an image; that of one whose annotation has none is its own."""
        pid = int(self.pid_N[image])
        return pid if pid >= 0 else self.identities + image

    def identities_of_all(self) -> np.ndarray:
        """(N,) int64: the same for all images."""
        return np.where(self.pid_N >= 0, self.pid_N, self.identities + np.arange(self.images))

    def texts(self, first: int, stop: int) -> bytes:
        """The captions of images ``first`` to ``stop`` - 1 one after another, in UTF-8."""
        start, end = self._text_start_C[self.caption_start_N[[first, stop]]].tolist()
        return self._text[start:end].tobytes()

    def place(self, image: int) -> tuple[int, str]:
        """The number and the file name of the shard that holds an image."""
        shard = int(np.searchsorted(self.first_S, image, "right")) - 1
        return shard, self.shards[shard]

    def image_bytes(self, image: int) -> bytes:
        """The content of an image file.

        Raises:
            ImageError: the shard has gone or has become shorter.
        """
        size = int(self.size_N[image])
        data = self._read(image, int(self.offset_N[image]), size)
        if len(data) < size:
            path = self.folder / self.place(image)[1]
            raise ImageError(f"{path}: cut off before the end of image {image}; fetch it again")
        return data

    def picture(self, image: int) -> Image.Image:
        """An image, decoded.

        Raises:
            ImageError: it cannot be; names the shard and the member.
        """
        return decode_bytes(self.image_bytes(image), self.name(image))

    def original_size(self, image: int) -> tuple[int, int]:
        """(height, width) of :meth:`picture`, which is not decoded for it. Raises ImageError."""
        return upright_size(self.image_bytes(image), self.name(image))

    def name(self, image: int) -> str:
        """The shard and the member that hold an image, for messages."""
        member = self._read(image, int(self.offset_N[image]) - BLOCKSIZE, 100).split(b"\0")[0]
        return f"{self.folder / self.place(image)[1]}, {member.decode(errors='replace')}"

    def _read(self, image: int, offset: int, size: int) -> bytes:
        shard, name = self.place(image)
        try:
            if shard not in self._files:
                if len(self._files) >= _OPEN_FILES:
                    os.close(self._files.pop(next(iter(self._files))))
                self._files[shard] = os.open(self.folder / name, os.O_RDONLY)
            return os.pread(self._files[shard], size, offset)
        except OSError as error:
            raise ImageError(f"{self.folder / name}: image {image} cannot be read ({error.strerror})") from None


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / INDEX / "index.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["version"] != _VERSION:
            raise DataError(f"{path}: version {about['version']}, expected {_VERSION}; make it again")
        for key in ("images", "captions", "identities", "without_id", "text_bytes", "shards"):
            about[key]
    except OSError as error:
        there = (
            "has tar files, but no index; make it: python -m datasets.shards index"
            if any(folder.glob("*.tar"))
            else ("is no folder of shards; make one: python -m datasets.shards import")
        )
        raise DataError(f"{folder}: {there} ({path}: {error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: damaged ({error!r}); make it again: python -m datasets.shards index") from None
    return about


def _check_size(path: Path, size: int, remedy: str) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {remedy}") from None
    if found != size:
        raise DataError(f"{path}: has {found} bytes, the index says {size}; {remedy}")


def _mapped(path: Path, kind: str) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.empty(0, kind)
    return np.asarray(np.memmap(path, kind, "r"))
