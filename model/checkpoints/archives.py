"""Files of weights: found on disk, downloaded, read without running code in them, loaded strictly."""

import json
import logging
import os
import pickle
import shutil
import urllib.request
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from model.checkpoints.torchscript import is_torchscript, torchscript_weights
from utils import UserError
from utils.files import file_sha256, first_line

log = logging.getLogger("descry")

_OPENAI = "https://openaipublic.azureedge.net/clip/models"

SAFETENSORS = ".safetensors"
"""what the names of such files end in"""

FLAGS = "flags"
"""key of their metadata under which an exported run has its flags, as json"""

ARCHIVES = {
    "ViT-B/16": ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "ViT-B/32": ("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    "ViT-L/14": ("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "ViT-L/14@336px": ("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
}
"""value of ``--pretrain_choice`` to (file name, sha256)"""


_STAND_INS = [(OrderedDict, "easydict.EasyDict")]
"""what takes the place of classes in checkpoints, so that no code of theirs runs: TBPS-CLIP saves its flags so"""


def find_weights(choice: str, others: Iterable[str] = ()) -> Path:
    """The file behind ``--pretrain_choice``: ``model/clip_pretrain/``, then ``~/.cache/clip/``, then a download.

    Raises UserError where ``choice`` is neither a path nor a published name (``others`` need no file, the message lists
    them), or the file is damaged or cannot be downloaded.
    """
    if choice not in ARCHIVES:
        path = Path(choice)
        if path.is_file():
            return path
        names = ", ".join([*ARCHIVES, *others])
        raise UserError(f"--pretrain_choice {choice}: neither a file nor one of {names}")
    name, digest = ARCHIVES[choice]
    folders = [Path(__file__).parents[1] / "clip_pretrain", Path.home() / ".cache" / "clip"]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        return download(f"{_OPENAI}/{digest}/{name}", folders[0] / name, digest)
    _check(found, digest)
    return found


def _check(path: Path, digest: str) -> None:
    found = file_sha256(path)
    if found != digest:
        raise UserError(
            f"{path}: damaged or another file (sha256 {found[:16]}..., expected {digest[:16]}...); delete it and start "
            "again, or name your own weights with --pretrain_choice FILE"
        )


def download(url: str, path: Path, digest: str) -> Path:
    """Fetch a file beside its final place with a progress bar, check its sha256, and only then give it its name."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=30) as response, part.open("wb") as file:  # noqa: S310
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm.wrapattr(response, "read", total=total, desc=path.name, disable=None) as reader:
                shutil.copyfileobj(reader, file)
        _check(part, digest)
        part.replace(path)
    except OSError as error:
        raise UserError(
            f"--pretrain_choice: {path.name} is not on this machine and cannot be downloaded ({error}); put the file "
            f"from {url} into {path.parent}/, or start from random weights with --pretrain_choice small"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return path


def is_published(path: Path) -> bool:
    """Whether a file is one of OpenAI's archives, to the last bit."""
    return file_sha256(path) in {digest for _, digest in ARCHIVES.values()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive, a safetensors file or a state dict (also one below ``model``), as they are.

    No code in the file is run, with one exception: an archive of OpenAI, known by its sha256, that our own reader
    cannot read is opened by PyTorch.

    Raises:
        UserError: the file holds something else, or not what its name says.
    """
    try:
        return _read_weights(path)
    except UserError as error:
        if not is_published(path):
            raise
        log.warning("%s; it is OpenAI's file, so PyTorch may open it", error)
        return dict(torch.jit.load(path, map_location="cpu").state_dict())


def _read_weights(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a pointer of Git LFS, not the weights; fetch them with git lfs pull")
    if start and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        raise UserError(f"{path}: a text, not weights; was a web page downloaded in their place?")
    is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    if is_safetensors != (path.suffix == SAFETENSORS):
        what = "a safetensors file, which its name does not say" if is_safetensors else "no safetensors file"
        raise UserError(f"{path}: {what}; damaged, or to be renamed")
    if is_safetensors:
        return read_state(path)
    return torchscript_weights(path) if is_torchscript(path) else state_dict_in(read_torch_file(path), path)


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint: of what ``torch.save`` wrote, or of ``FILE.safetensors``."""
    if path.suffix != SAFETENSORS:
        return state_dict_in(read_torch_file(path), path)
    with safetensors_file(path) as file:
        return state_dict_in({key: file.get_tensor(key) for key in file.keys()}, path)  # noqa: SIM118


@contextmanager
def safetensors_file(path: Path) -> Iterator[safe_open]:
    """A safetensors file, open for reading.

    Raises:
        UserError: names the file and whether it is absent, or damaged or something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such checkpoint'}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged safetensors file, or something else ({first_line(error)})") from None


def flags_in(path: Path) -> dict[str, Any]:
    """The flags in the metadata of a file that ``export.py --format safetensors`` wrote.

    Raises:
        UserError: the file is damaged or comes from another program.
    """
    with safetensors_file(path) as file:
        written = (file.metadata() or {}).get(FLAGS)
    try:
        return dict(json.loads(written))
    except (TypeError, ValueError):
        raise UserError(f"{path}: holds no flags of a run; name a run directory instead") from None


def state_dict_in(content: object, path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint's content, whether stored bare or under ``model`` or ``state_dict``."""
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    held = content.items() if isinstance(content, Mapping) else ()
    if not held or not all(isinstance(key, str) and isinstance(v, Tensor) and not v.is_meta for key, v in held):
        raise UserError(f"{path}: holds no weights (expected a state dict, bare or under 'model')")
    matrices = [(key, value) for key, value in held if value.dim() > 1 and value.numel()]
    if matrices and not any(value.any() for _, value in matrices):
        raise UserError(f"{path}: all weights are zero; whatever wrote the file had nothing to save")
    if matrices and not any(value.is_floating_point() for _, value in matrices):
        key, value = matrices[0]
        raise UserError(f"{path}: the weights are whole numbers ({key}: {value.dtype}); save them in floating point")
    return dict(held)


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Fill every weight of a module; anything missing, left over or of another shape is one error that lists it."""
    wanted = module.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in state]
    problems += [f"unknown {key}" for key in state if key not in wanted]
    for key, value in wanted.items():
        found = state.get(key, value)
        if value.is_floating_point() and not found.is_floating_point():  # converting would lose what does not fit
            problems.append(f"{key}: {found.dtype} in the file, {value.dtype} in the model")
        if found.shape != value.shape:
            problems.append(f"{key}: {tuple(found.shape)} in the file, {tuple(value.shape)} in the model")
    if problems:
        more = f"\n  and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise UserError(f"{source}: does not fit the model\n  " + "\n  ".join(problems[:12]) + more)
    module.load_state_dict(dict(state))


def layers_in(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules a checkpoint has below a prefix, which ends in a dot."""
    return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})


def read_torch_file(path: Path) -> Any:
    """The content of a file written by ``torch.save``, tensors on the CPU; no code in it is run.

    Raises:
        UserError: names the file and whether it is absent, torn, changed since it was written, or holds objects that
            only code could restore.
    """
    if not path.is_file():  # asked first, because opening a pipe would wait for ever
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such checkpoint'}")
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: not a checkpoint of plain tensors and numbers ({first_line(error)})") from None
    except Exception as error:  # the readers run into nearly anything in a file that torch.save did not write
        reason = first_line(error)
        shown = f" ({reason})" if " " in reason else ""  # for foreign files PyTorch names a bare number or key
        raise UserError(f"{path}: damaged or not a checkpoint{shown}") from None


def _check_archive(path: Path) -> None:
    """Compare every part of a zip file, which is what ``torch.save`` writes, with its stored checksum.

    ``torch.load`` leaves these checksums out, and would take a flipped bit in a weight for the weight. This costs a
    third of a second per GB. Files in the format of before 2020 carry no checksums, and pass.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise UserError(f"part {part.filename} is compressed, as torch.save never does")
        if (bad := archive.testzip()) is not None:
            raise UserError(f"part {bad} is not what was written")
