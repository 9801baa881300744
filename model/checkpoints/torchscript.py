"""Weights out of a TorchScript archive, without TorchScript: loading one the usual way runs code that it brings along.

An archive is a zip file with a pickle of the module tree, one file per tensor storage, and the source of every class,
which says which attributes are parameters and buffers. The source is searched as text; of the pickle only tensors,
plain values and attribute tables are restored.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils import UserError
from utils.files import first_line

_DTYPES = {
    **{"DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}
_CLASS = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*?)\](?:\n  __buffers__ = \[(.*?)\])?", re.M)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive (and not what ``torch.save`` writes, a zip file as well)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def torchscript_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a TorchScript archive; nothing in it is run.

    Raises:
        UserError: the file is damaged, or holds something else than modules, tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(_weights(_Tree(archive).load(), _registered(archive)))
    except Exception as error:  # a foreign pickle makes the unpickler raise nearly anything
        raise UserError(f"{path}: damaged TorchScript archive, or not one of weights ({first_line(error)})") from None


def classes_in(path: Path) -> set[str]:
    """Names of the classes whose modules a TorchScript archive holds, without their packages."""
    with zipfile.ZipFile(path) as archive:
        return {name for _, name in _registered(archive)}


class _Module:
    """A module of the tree: its attributes, whatever its class was."""

    key = ("", "")
    """Python module and name of its class"""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"class {self.key[1]} restores itself by code")
        self.attributes = state


class _Tree(pickle.Unpickler):
    """Restores the module tree of an archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        (name,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        self._archive, self._folder = archive, name.removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}
        super().__init__(archive.open(name))

    def find_class(self, module: str, name: str) -> Any:
        """The few things that a pickle of modules may name."""
        if module.split(".")[0] == "__torch__":
            return type("Module", (_Module,), {"key": (module, name)})
        if module == "torch" and name in _DTYPES:
            return name
        if module == "torch.jit._pickle" and (name.startswith("build_") or name == "restore_type_tag"):
            return lambda value, *_: value
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: tuple) -> Tensor:
        """A storage as a tensor of one dimension."""
        _, kind, number, _, _ = pid
        if number not in self._storages:
            content = bytearray(self._archive.read(f"{self._folder}data/{number}"))
            self._storages[number] = torch.frombuffer(content, dtype=_DTYPES[kind]) if content else torch.empty(0)
        return self._storages[number]


def _registered(archive: zipfile.ZipFile) -> dict[tuple[str, str], set[str]]:
    """Names of the parameters and buffers of every class, read off its source."""
    found = {}
    for name in archive.namelist():
        if match := re.fullmatch(r"[^/]+/code/(.*)\.py", name):
            for title, *lists in _CLASS.findall(archive.read(name).decode()):
                found[match[1].replace("/", "."), title] = set(re.findall(r'"(.*?)"', " ".join(lists)))
    return found


def _weights(
    module: _Module, registered: dict[tuple[str, str], set[str]], prefix: str = ""
) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _weights(value, registered, f"{prefix}{name}.")
        elif isinstance(value, Tensor) and name in registered[module.key]:
            yield prefix + name, value
