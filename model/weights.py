"""Where weights come from: OpenAI's archives, plain state dicts, published run directories; all end in our key names.

Archives are looked for on disk first and downloaded last. Only tensors are read, and no code in a file is run.
"""

import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from model.clip import CLIP, ClipSizes
from model.torchscript import is_torchscript, torchscript_weights
from utils.checkpoint import read_torch_file
from utils.files import file_sha256
from utils.options import opt

log = logging.getLogger("descry")

_OPENAI = "https://openaipublic.azureedge.net/clip/models"
ARCHIVES = {
    "ViT-B/16": ("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
}
"""value of ``--pretrain_choice`` to (file name, sha256)"""

VIT_B_16 = ClipSizes(512, (224, 224), 16, 16, 768, 12, 512, 12, 49408, 77)
"""the sizes that OpenAI published for ViT-B/16"""

RANDOM = {
    "tiny": ClipSizes(64, (224, 224), 16, 16, 64, 2, 64, 2, 49408, 77),
    "small": ClipSizes(192, (224, 224), 16, 16, 192, 4, 128, 2, 49408, 77),
    "random-ViT-B/16": VIT_B_16,
}
"""architectures with random weights: ``tiny`` for tests, ``small`` for the demo, ``random-ViT-B/16`` for timing"""


@dataclass(frozen=True)
class BackboneOptions:
    """Which towers to start from."""

    pretrain_choice: str = opt(
        "ViT-B/16",
        "CLIP weights: ViT-B/16, a file (TorchScript archive or state dict), or without weights: tiny (2 layers of 64, "
        "for tests), small (4 layers of 192 and 2 of 128, for the demo), random-ViT-B/16",
    )
    img_size: tuple[int, ...] = opt((384, 128), "input height and width in pixels")
    stride_size: int | None = opt(None, "pixels between patches; smaller than the patch makes them overlap [patch]")

    def __post_init__(self) -> None:
        if len(self.img_size) != 2 or min(self.img_size) < 1:
            shown = " ".join(str(side) for side in self.img_size)
            raise ValueError(f"--img_size {shown}: expected height and width in pixels, as in --img_size 384 128")
        if self.stride_size is not None and self.stride_size < 1:
            raise ValueError(f"--stride_size {self.stride_size}: expected at least 1 pixel")


def load_clip(options: BackboneOptions) -> CLIP:
    """The towers that ``--pretrain_choice`` names, at the size of ``--img_size``.

    Raises:
        ValueError: the file is absent, damaged or does not describe a CLIP model; names the file and the remedy.
    """
    if options.pretrain_choice in RANDOM:
        return CLIP(at_resolution(RANDOM[options.pretrain_choice], options))
    path = find_weights(options.pretrain_choice)
    state = clip_names(read_weights(path))
    try:
        stored = sizes_of(state)
    except KeyError as error:
        raise ValueError(
            f"--pretrain_choice {path}: not a CLIP vision transformer, it has no weight {error}; its first keys are "
            f"{', '.join(list(state)[:5])}"
        ) from None
    except ValueError as error:
        raise ValueError(f"--pretrain_choice {path}: not a CLIP vision transformer, {error}") from None
    sizes = at_resolution(stored, options)
    clip = CLIP(sizes)
    state["visual.positional_embedding"] = resize_positions(state["visual.positional_embedding"], sizes.grid)
    load_strict(clip, state, f"--pretrain_choice {path}")
    return clip


def at_resolution(sizes: ClipSizes, options: BackboneOptions) -> ClipSizes:
    """The same towers for another image size and stride."""
    stride = options.stride_size or sizes.patch_size
    if min(options.img_size) < sizes.patch_size:
        shown = " ".join(str(side) for side in options.img_size)
        raise ValueError(f"--img_size {shown}: smaller than one patch of {sizes.patch_size} pixels")
    return replace(sizes, image_size=tuple(options.img_size), stride=stride)


def weights_file(options: BackboneOptions) -> Path | None:
    """The file that ``--pretrain_choice`` stands for; None for random weights."""
    return None if options.pretrain_choice in RANDOM else find_weights(options.pretrain_choice)


def find_weights(choice: str) -> Path:
    """The file behind ``--pretrain_choice``: ``model/clip_pretrain/``, then ``~/.cache/clip/``, then a download."""
    if choice not in ARCHIVES:
        path = Path(choice)
        if path.is_file():
            return path
        names = ", ".join([*ARCHIVES, *RANDOM])
        raise ValueError(f"--pretrain_choice {choice}: neither a file nor one of {names}")
    name, digest = ARCHIVES[choice]
    folders = [Path(__file__).parent / "clip_pretrain", Path.home() / ".cache" / "clip"]
    for folder in folders:
        if (folder / name).is_file():
            _check(folder / name, digest)
            return folder / name
    return download(f"{_OPENAI}/{digest}/{name}", folders[0] / name, digest)


def _check(path: Path, digest: str) -> None:
    found = file_sha256(path)
    if found != digest:
        raise ValueError(
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
            with tqdm(total=total, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
                while chunk := response.read(1 << 20):
                    file.write(chunk)
                    bar.update(len(chunk))
        _check(part, digest)
        part.replace(path)
    except (urllib.error.URLError, TimeoutError, ConnectionError, OSError) as error:
        raise ValueError(
            f"--pretrain_choice: {path.name} is not on this machine and cannot be downloaded ({error}); put the file "
            f"from {url} into {path.parent}/, or start from random weights with --pretrain_choice small"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive or of a plain state dict (also one stored under ``model``), as they are."""
    return torchscript_weights(path) if is_torchscript(path) else state_dict_in(read_torch_file(path), path)


def state_dict_in(content: object, path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint's content, whether stored bare or under ``model`` or ``state_dict``."""
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    held = content.items() if isinstance(content, Mapping) else ()
    if not held or not all(isinstance(key, str) and isinstance(v, Tensor) and not v.is_meta for key, v in held):
        raise ValueError(f"{path}: holds no weights (expected a state dict, bare or under 'model')")
    return dict(held)


_TEXT_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
_CLIP_EXTRAS = ("input_resolution", "context_length", "vocab_size", "logit_scale")


def clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's key names to ours (the text tower's keys move under ``text.``), half precision to float32."""
    ours = {}
    for key, value in state.items():
        root = key.split(".")[0]
        if root in _CLIP_EXTRAS:
            continue
        name = f"text.{key}" if root in _TEXT_PARTS else key
        ours[_projection_names(name)] = value.float() if value.is_floating_point() else value
    return ours


def _projection_names(key: str) -> str:
    return re.sub(r"\.in_proj_(weight|bias)$", r".in_proj.\1", key)


_SHAPED = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "text.token_embedding.weight": 2,
    "text.text_projection": 2,
    "text.positional_embedding": 2,
}
"""weights that the sizes of the towers are read off, and how many dimensions each has"""


def sizes_of(state: Mapping[str, Tensor], prefix: str = "") -> ClipSizes:
    """Every size of the towers, read off a state dict with our key names; the image is assumed square.

    Raises:
        KeyError: a key that every CLIP vision transformer has is missing.
        ValueError: such a weight has the wrong number of dimensions, or none of them.
    """
    for name, dimensions in _SHAPED.items():
        shape = tuple(state[prefix + name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise ValueError(f"its weight {prefix}{name} has the shape {shape}")
    conv = state[f"{prefix}visual.conv1.weight"]
    patch = conv.shape[-1]
    side = patch * round((state[f"{prefix}visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vocab_size, text_width = state[f"{prefix}text.token_embedding.weight"].shape
    return ClipSizes(
        embed_dim=state[f"{prefix}text.text_projection"].shape[1],
        image_size=(side, side),
        patch_size=patch,
        stride=patch,
        vision_width=conv.shape[0],
        vision_layers=_layers(state, f"{prefix}visual.transformer.resblocks."),
        text_width=text_width,
        text_layers=_layers(state, f"{prefix}text.transformer.resblocks."),
        vocab_size=vocab_size,
        context_length=state[f"{prefix}text.positional_embedding"].shape[0],
    )


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def resize_positions(positions_LW: Tensor, grid: tuple[int, int]) -> Tensor:
    """A square grid of position embeddings resized to another grid, bilinear; the class position is kept.

    Args:
        positions_LW: (1 + side * side, W), the class position first.
        grid: rows and columns wanted.
    """
    if positions_LW.shape[0] == grid[0] * grid[1] + 1 and grid[0] == grid[1]:
        return positions_LW
    side = round((positions_LW.shape[0] - 1) ** 0.5)
    if side * side + 1 != positions_LW.shape[0]:
        raise ValueError(f"{positions_LW.shape[0]} image positions are not a square grid and a class position")
    grid_1WRC = positions_LW[1:].T.reshape(1, -1, side, side)
    resized_1WRC = F.interpolate(grid_1WRC, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions_LW[:1], resized_1WRC.flatten(2)[0].T])


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Fill every weight of a module; anything missing, left over or of another shape is one error that lists it."""
    wanted = module.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in state]
    problems += [f"unknown {key}" for key in state if key not in wanted]
    problems += [  # which would be converted without a word, and lose what does not fit
        f"{key}: {state[key].dtype} in the file, {value.dtype} in the model"
        for key, value in wanted.items()
        if key in state and value.is_floating_point() and not state[key].is_floating_point()
    ]
    problems += [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(value.shape)} in the model"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        more = f"\n  and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(f"{source}: does not fit the model\n  " + "\n  ".join(problems[:12]) + more)
    module.load_state_dict(dict(state))
