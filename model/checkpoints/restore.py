"""From a checkpoint file to the model that encodes, for testing and searching."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from model.adapters.lora import LoRAOptions
from model.adapters.parsing import ParsingOptions
from model.adapters.prompts import prompts_in
from model.backbones.spec import BackboneOptions
from model.build import GetOptions, check_text
from model.checkpoints.archives import read_torch_file, state_dict_in
from model.checkpoints.published import has_published_parsing, our_names
from model.checkpoints.restore_encoder import restore_encoder
from model.retriever import Retriever


class Restored(NamedTuple):
    """A model without heads, and what else its checkpoint holds."""

    model: Retriever
    state: dict[str, Tensor]
    """the whole checkpoint, under our names"""
    unused: list[str]
    """keys of ``state`` that are not in the model"""
    unknown: list[str]
    """keys of the checkpoint that have no name here"""
    parsing: ParsingOptions
    """PHP's flags as the checkpoint needs them"""

    def text_length(self, flag: int) -> int:
        """The length to cut captions to; see :func:`model.build.check_text`."""
        return check_text(self.model.clip, flag, prompts_in(self.state)[0])


def restore(checkpoint: Path, get: GetOptions) -> Restored:
    """The encoder of a checkpoint, whoever wrote it, on the CPU.

    Args:
        checkpoint: a file written by training, here or by a published program.
        get: gives the instance of an options dataclass.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    saved = state_dict_in(read_torch_file(checkpoint), checkpoint)
    state, unknown = our_names(saved)
    parsing = get(ParsingOptions)
    if parsing.php_attention is None and has_published_parsing(saved):
        parsing = replace(parsing, php_attention="batch")
    model, unused = restore_encoder(state, get(BackboneOptions), str(checkpoint), get(LoRAOptions), parsing)
    return Restored(model, state, unused, unknown, parsing)
