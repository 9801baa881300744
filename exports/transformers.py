"""transformers: ``CLIPModel.from_pretrained``, with tokenizer and image processor.

``CLIPModel`` has a square table of positions, and resizes it (bicubic, ``interpolate_pos_encoding=True``) for images
that are not square. At an odd ratio that samples exactly the middle one of as many equal columns and rows, so a table
of which each entry is repeated gives the stored positions back to the last bit.

Shape letters: N images or captions, D embedding, P positions, W width.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from exports.clip_towers import LOGIT_SCALE, PlainClip, TowerShape, plain_clip
from exports.format import ExportedRun, ExportFormat, TargetProgram
from exports.tokenizer import tokenizer_of
from model.backbones.clip_tokenizer import END, END_ID, MASK, START, START_ID
from utils import UserError

README = """# A CLIP model for transformers

```python
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

model = CLIPModel.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
processor = AutoImageProcessor.from_pretrained("FOLDER", backend="pil")
captions = tokenizer(["a man in a black jacket"], padding=True, truncation=True, return_tensors="pt")
text_features = model.get_text_features(**captions).pooler_output
images = processor(images=[image], return_tensors="pt")  # image: a PIL image
image_features = model.get_image_features(**images, interpolate_pos_encoding=True).pooler_output
```

- `interpolate_pos_encoding=True` is needed with every image: it makes the declared square image size fit the real one.
- `backend="pil"`: the torchvision backend rounds some pixels to the neighbouring grey level.
- Divide features by their length before comparing them. `logit_scale` was not trained.
- Apply `PIL.ImageOps.exif_transpose` to photos from a phone first.
"""
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_NAMES = (
    (r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"visual\.conv1", "vision_model.embeddings.patch_embedding"),
    (r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.ln_pre", "vision_model.pre_layrnorm"),
    (r"visual\.ln_post", "vision_model.post_layernorm"),
    (r"visual\.proj", "visual_projection.weight"),
    (r"visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"text\.token_embedding", "text_model.embeddings.token_embedding"),
    (r"text\.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"text\.ln_final", "text_model.final_layer_norm"),
    (r"text\.text_projection", "text_projection.weight"),
    (r"text\.transformer\.resblocks", "text_model.encoder.layers"),
    (r"ln_([12])", r"layer_norm\1"),
    (r"attn\.out_proj", "self_attn.out_proj"),
    (r"mlp\.c_fc", "mlp.fc1"),
    (r"mlp\.c_proj", "mlp.fc2"),
)
"""parts of our names, whole words, and what transformers calls them"""


def write(run: ExportedRun, folder: Path) -> None:
    """Configuration, weights, tokenizer and image processor."""
    clip = plain_clip(run, "transformers")
    side = table_side(*clip.grid)
    if side is None:
        height, width = clip.image_size
        rows, columns = clip.grid
        raise UserError(
            f"--format transformers: cannot express the image size {height} {width}: its square table of positions "
            f"gives {rows} x {columns} of them back only where a square is an odd multiple of both; use --format "
            "open_clip or onnx"
        )
    import transformers  # takes seconds, and only this needs it

    config = transformers.CLIPConfig(**_config(clip, side))
    model = transformers.CLIPModel(config)
    model.load_state_dict(_weights(clip, side))
    _check_positions(model, clip)
    with _without_bars():
        model.save_pretrained(folder)
    height, width = clip.image_size
    transformers.CLIPImageProcessor(
        size={"height": height, "width": width},
        resample=Image.Resampling[clip.resize_filter.upper()],
        do_center_crop=False,
        image_mean=list(clip.pixel_mean),
        image_std=list(clip.pixel_std),
    ).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_of(clip.tokenizer, clip.context_length),
        **{"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END, "mask_token": MASK},
        model_max_length=clip.context_length,
    ).save_pretrained(folder)


def table_side(rows: int, columns: int) -> int | None:
    """The smallest square of which rows and columns are odd fractions; None where there is none (16 and 8)."""
    same_power_of_two = rows & -rows == columns & -columns
    return math.lcm(rows, columns) if same_power_of_two else None


def square_table(positions_PW: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Positions (1 + rows * columns, W), the class first, each repeated so that they fill a square (1 + side², W)."""
    rows, columns = grid
    table_RCW = positions_PW[1:].unflatten(0, grid)
    table_RCW = table_RCW.repeat_interleave(side // rows, dim=0).repeat_interleave(side // columns, dim=1)
    return torch.cat([positions_PW[:1], table_RCW.flatten(0, 1)])


def _config(clip: PlainClip, side: int) -> dict[str, Any]:
    ids = {"bos_token_id": START_ID, "eos_token_id": END_ID, "pad_token_id": END_ID}
    return {
        "projection_dim": clip.embed_dim,
        "vision_config": {
            **_tower(clip.image, clip.embed_dim),
            "image_size": side * clip.patch_size,
            "patch_size": clip.patch_size,
        },
        "text_config": {
            **_tower(clip.text, clip.embed_dim),
            "vocab_size": clip.vocab_size,
            "max_position_embeddings": clip.context_length,
            **ids,
        },
    }


def _tower(shape: TowerShape, embed_dim: int) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_act": _ACTIVATIONS[shape.activation],
        "layer_norm_eps": shape.eps,
        "projection_dim": embed_dim,
    }


def _weights(clip: PlainClip, side: int) -> dict[str, Tensor]:
    weights = {"logit_scale": torch.tensor(math.log(LOGIT_SCALE))}
    for key, value in clip.state.items():
        if key == "visual.positional_embedding":
            value = square_table(value, clip.grid, side)
        elif key in ("visual.proj", "text.text_projection"):
            value = value.T.contiguous()
        name = key
        for pattern, theirs in _NAMES:
            name = re.sub(rf"(?<![^.]){pattern}(?![^.])", theirs, name)
        if ".attn.in_proj." in name:
            for part, value_OI in zip("qkv", value.chunk(3), strict=True):
                weights[name.replace("attn.in_proj", f"self_attn.{part}_proj")] = value_OI.clone()
        else:
            weights[name] = value
    return weights


def _check_positions(model: Any, clip: PlainClip) -> None:
    """transformers must give the stored positions back, bit for bit."""
    stored_PW = clip.state["visual.positional_embedding"]
    with torch.no_grad():
        given_1PW = model.vision_model.embeddings.interpolate_pos_encoding(stored_PW[None], *clip.image_size)
    if not torch.equal(given_1PW[0], stored_PW):
        raise UserError("--format transformers: this version of transformers resizes positions in another way")


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers shows one for every file."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load(folder: Path) -> TargetProgram:
    """As the README says."""
    import transformers

    with _without_bars():
        model = transformers.CLIPModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")

    @torch.no_grad()
    def encode_image(images: Sequence[Image.Image]) -> Tensor:
        pixels = processor(images=list(images), return_tensors="pt")
        return normalize(model.get_image_features(**pixels, interpolate_pos_encoding=True).pooler_output, dim=1)

    @torch.no_grad()
    def encode_text(captions: Sequence[str]) -> Tensor:
        ids = tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt")
        return normalize(model.get_text_features(**ids).pooler_output, dim=1)

    return TargetProgram(encode_image, encode_text)


FORMAT = ExportFormat(write, load, ("transformers",), README)
