"""Run directories of small models with random weights."""

from pathlib import Path
from typing import Any

import torch
import yaml

from model.adapters import FreezeOptions, add_adapters
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import Parsing, ParsingOptions
from model.adapters.prompts import PromptOptions
from model.adapters.token_selection import TokenSelection, TokenSelectionOptions
from model.backbones.clip import CLIP, ClipSizes
from model.retriever import Retriever


def random_run(
    folder: Path,
    image_size: tuple[int, int] = (64, 32),
    stride: int = 16,
    php_variant: str | None = None,
    lora: LoRAOptions = LoRAOptions(),  # noqa: B008 (frozen)
    prompts: int | None = None,
    select_ratio: float | None = None,
    **flags: Any,
) -> Path:
    """best.pth and configs.yaml of one block of width 64 in each tower, with other ``flags`` beside the necessary."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIP(ClipSizes(64, image_size, 16, stride, 64, 1, 64, 1, 49408, 77))
        add_adapters(clip, lora, PromptOptions(prompt_depth=prompts), FreezeOptions())
        parsing = None
        if php_variant is not None:
            parsing = Parsing(ParsingOptions(php_variant=php_variant, moe_layers=1), 64)
        selection = None
        if select_ratio is not None:
            selection = TokenSelection(TokenSelectionOptions(select_ratio), clip)
        model = Retriever(clip, parsing=parsing, token_selection=selection)
        for parameter in model.parameters():  # LoRA, biases and experts begin at zero, where mistakes do not show
            parameter.data += 0.02 * torch.randn_like(parameter)
    folder.mkdir(parents=True)
    torch.save({"model": model.state_dict()}, folder / "best.pth")
    flags |= {"img_size": list(image_size), "stride_size": stride, "select_ratio": select_ratio}
    flags |= {name: value for name, value in vars(lora).items() if value is not None}
    (folder / "configs.yaml").write_text(yaml.safe_dump(flags))
    return folder
