"""Small models of open_clip with random weights, everything else as its configurations say, and files of them."""

import functools
import json
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import timm
from torch import Tensor, nn

from model.backbones.architecture import PREFIX
from tests.helpers.tokenizer import VOCABULARY

CONFIGS = Path(open_clip.__file__).with_name("model_configs")


def small_config(name: str, **changes: object) -> dict:
    """A configuration of open_clip with 2 narrow layers per tower; head widths, perceptrons and the rest stay."""
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    vision, text = config["vision_cfg"], config["text_cfg"]
    if text["vocab_size"] > 49408 or "hf_tokenizer_name" in text:
        text["vocab_size"] = VOCABULARY
    if "timm_model_name" in vision:
        text["width"] = config["embed_dim"] = 4 * text["heads"]
    else:
        vision |= {"layers": 2, "width": 2 * vision.get("head_width", 64)}
        text |= {"width": 2 * text["width"] // text["heads"], "heads": 2}
        config["embed_dim"] = 64
    text["layers"] = 2
    return config | changes


@torch.no_grad()
def small_model(config: dict, image_size: tuple[int, int] | None = None) -> nn.Module:
    """open_clip's model of a configuration; no weight is 0 or 1, so that none can be left out unnoticed."""
    config = json.loads(json.dumps(config))
    if image_size is not None:
        config["vision_cfg"]["image_size"] = image_size
    config.pop("init_logit_bias", None)
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    create, width = timm.create_model, config["embed_dim"]
    size = {"depth": 2, "embed_dim": width}
    if image_size is not None:
        size["img_size"] = image_size
    timm.create_model = functools.partial(create, **size)
    try:
        torch.manual_seed(0)
        model = kind(**config).eval()
    finally:
        timm.create_model = create
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def write_weights(folder: Path, name: str, config: dict, state: dict[str, Tensor]) -> str:
    """Configuration and weights in files; returns the ``--pretrain_choice`` of them."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(config))
    torch.save(state, folder / f"{name}.pt")
    return f"{PREFIX}{folder / name}.json:{folder / name}.pt"
