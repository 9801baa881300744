"""open_clip: a folder for ``local-dir:``, configuration and weights under OpenAI's names.

Shape letters: N images or captions, D embedding.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from exports.clip_towers import LOGIT_SCALE, PlainClip, TowerShape, plain_clip
from exports.format import ExportedRun, ExportFormat, TargetProgram
from model.backbones.text_cleaning import CleanedTokenizer
from model.checkpoints.archives import SAFETENSORS
from utils import UserError
from utils.files import write_text

README = """# A CLIP model for open_clip

```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
model.eval()
text_features = model.encode_text(tokenizer(["a man in a black jacket"]), normalize=True)
image_features = model.encode_image(preprocess(image)[None], normalize=True)  # image: a PIL image
```

`preprocess` resizes to the size of training without keeping the aspect ratio. Apply `PIL.ImageOps.exif_transpose` to
photos from a phone first. The word "jekyll" is the one that this tokenizer reads differently. `logit_scale` was not
trained.
"""


def write(run: ExportedRun, folder: Path) -> None:
    """``open_clip_config.json`` and ``open_clip_model.safetensors``."""
    clip = plain_clip(run, "open_clip")
    if isinstance(clip.tokenizer, CleanedTokenizer):
        raise UserError(
            "--format open_clip: cannot express captions that are cleaned first (--clean_text); "
            "--format transformers and onnx can"
        )
    write_text(folder / "open_clip_config.json", json.dumps(_config(clip), indent=2) + "\n")
    state = {_openai_name(key): value.contiguous() for key, value in clip.state.items()}
    state["logit_scale"] = torch.tensor(math.log(LOGIT_SCALE))
    save_file(state, folder / f"open_clip_model{SAFETENSORS}", metadata={"format": "pt"})


def _openai_name(key: str) -> str:
    return key.removeprefix("text.").replace(".attn.in_proj.", ".attn.in_proj_")


def _config(clip: PlainClip) -> dict[str, Any]:
    if clip.image.activation != clip.text.activation:
        found = f"{clip.image.activation} and {clip.text.activation}"
        raise UserError(f"--format open_clip: cannot express towers with different activations ({found})")
    return {
        "model_cfg": {
            "embed_dim": clip.embed_dim,
            "quick_gelu": clip.image.activation == "quick_gelu",
            "vision_cfg": {
                **_tower(clip.image),
                "image_size": list(clip.image_size),
                "patch_size": clip.patch_size,
                "head_width": clip.image.width // clip.image.heads,
            },
            "text_cfg": {
                **_tower(clip.text),
                "context_length": clip.context_length,
                "vocab_size": clip.vocab_size,
                "heads": clip.text.heads,
            },
        },
        "preprocess_cfg": {
            "size": list(clip.image_size),
            "mode": "RGB",
            "mean": list(clip.pixel_mean),
            "std": list(clip.pixel_std),
            "interpolation": clip.resize_filter,
            "resize_mode": "squash",
        },
    }


def _tower(shape: TowerShape) -> dict[str, Any]:
    config = {"width": shape.width, "layers": shape.layers, "mlp_ratio": shape.mlp_width / shape.width}
    if shape.activation == "gelu_tanh":
        config["act_kwargs"] = {"approximate": "tanh"}
    return {**config, "norm_kwargs": {"eps": shape.eps}}


def load(folder: Path) -> TargetProgram:
    """As the README says."""
    import open_clip  # takes seconds, and only this needs it

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()

    @torch.no_grad()
    def encode_image(images: Sequence[Image.Image]) -> Tensor:
        return normalize(model.encode_image(torch.stack([preprocess(image) for image in images])), dim=1)

    @torch.no_grad()
    def encode_text(captions: Sequence[str]) -> Tensor:
        return normalize(model.encode_text(tokenizer(list(captions))), dim=1)

    return TargetProgram(encode_image, encode_text)


FORMAT = ExportFormat(write, load, ("open_clip",), README)
