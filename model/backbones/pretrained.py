"""From ``--pretrain_choice`` to weights and what has to be known about them."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from model.backbones.architecture import (
    BESIDE,
    OPENAI,
    PREFIX,
    Architecture,
    alike,
    read_architecture,
    split_choice,
)
from model.backbones.sizes import ClipSizes
from model.checkpoints.archives import find_weights, is_published, read_weights
from model.checkpoints.torchscript import classes_in, is_torchscript
from utils import UserError

log = logging.getLogger("descry")

OPENAI_PREFIX = "openai:"
"""of a ``--pretrain_choice`` that names a state dict of OpenAI's CLIP, which does not show whose it is"""
_CLASSES = {"QuickGELU": ("quick_gelu",), "GELU": ("gelu", "gelu_tanh")}
"""class in a TorchScript archive to the activations that it can be"""


class Pretrained(NamedTuple):
    """A file of weights."""

    path: Path
    source: str
    """what to call it in an error"""
    state: Mapping[str, Tensor]
    """under the names that it has in the file"""
    architecture: Architecture | None
    """None where neither the file nor ``--pretrain_choice`` says what it is"""


def read_pretrained(choice: str, others: Iterable[str]) -> Pretrained:
    """The weights that ``--pretrain_choice`` names, read. Raises UserError.

    ``others``: choices that need no file, for the error about one that is unknown.
    """
    if choice.startswith(PREFIX):
        name, file = split_choice(choice)
        architecture = read_architecture(name)
        path = _existing(file, choice)
        _check_beside(path, architecture, choice)
    elif choice.startswith(OPENAI_PREFIX):
        architecture, path = OPENAI, _existing(choice.removeprefix(OPENAI_PREFIX), choice)
    else:
        architecture, path = None, find_weights(choice, others)
    state = read_weights(path)
    if architecture is not None and is_torchscript(path):
        _check_archive(path, architecture, choice)
    if architecture is None and ("input_resolution" in state or is_published(path)):
        architecture = OPENAI
    return Pretrained(path, f"--pretrain_choice {path}", state, architecture)


def refuse_unknown(given: Pretrained, sizes: ClipSizes) -> None:
    """Raise the UserError about weights that do not say what they are: equal shapes compute different features."""
    names = alike(sizes)
    known = f"; of open_clip's models {', '.join(names)} have these sizes" if names else ""
    raise UserError(
        f"{given.source}: the weights fit more than one model: activation, attention heads and pixel statistics are "
        f"not in the file{known}; give --pretrain_choice open_clip:NAME:{given.path}, or "
        f"{OPENAI_PREFIX}{given.path} for weights of OpenAI or fine-tuned from them"
    )


def _existing(file: str, choice: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--pretrain_choice {choice}: {file} is {'not a file' if path.exists() else 'not there'}")
    return path


def _check_beside(path: Path, architecture: Architecture, choice: str) -> None:
    """Compare with the configuration that a download from a model hub has beside the weights."""
    beside = path.with_name(BESIDE)
    if not beside.is_file() or beside == Path(architecture.name):
        return
    there = read_architecture(str(beside))
    if not architecture.same_function(there):
        raise UserError(
            f"--pretrain_choice {choice}: {beside} says otherwise ({_shown(there)}, not {_shown(architecture)}); give "
            f"--pretrain_choice {PREFIX}{beside}:{path}"
        )


def _check_archive(path: Path, architecture: Architecture, choice: str) -> None:
    """Compare with the activation of a TorchScript archive, which names the classes of its modules."""
    there = classes_in(path)
    found = [name for name in _CLASSES if name in there]
    if len(found) == 1 and architecture.image.activation not in _CLASSES[found[0]]:
        raise UserError(
            f"--pretrain_choice {choice}: the archive computes with {found[0]}, {architecture.name} with "
            f"{architecture.image.activation}; name another model (such as ViT-B-16-quickgelu for ViT-B-16)"
        )


def _shown(architecture: Architecture) -> str:
    mean = " ".join(f"{value:g}" for value in architecture.pixel_mean)
    return f"{architecture.image.activation}, {architecture.image.heads} heads, pixel mean {mean}"
