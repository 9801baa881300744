"""What an export format is: how a run is written, and how the program it is for reads it back.

Shape letters: N images or captions, D embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from model.feature_encoder import FeatureEncoder


@dataclass(frozen=True)
class ExportedRun:
    """What is exported."""

    encoder: FeatureEncoder
    """its model has LoRA merged and is in float32 on the CPU"""
    flags: Mapping[str, Any]
    """those of the run that encoding depends on, without LoRA's; values that json can write"""


class TargetProgram(NamedTuple):
    """An export as its users have it: read by the program it was made for, with preprocessing and tokenizer."""

    encode_image: Callable[[Sequence[Image.Image]], Tensor]
    """PIL images to (N, D) of length 1"""
    encode_text: Callable[[Sequence[str]], Tensor]
    """captions to (N, D) of length 1"""


@dataclass(frozen=True)
class ExportFormat:
    """One value of ``--format``."""

    write: Callable[[ExportedRun, Path], None]
    """fills an empty folder; raises UserError, which names what the format cannot express"""
    load: Callable[[Path], TargetProgram]
    """runs what is in the folder without this project's model code"""
    packages: tuple[str, ...]
    """that writing and checking import"""
    readme: str
    """how to use the export, markdown; FOLDER stands for where it is"""
