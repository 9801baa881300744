"""From a checkpoint file to the model that encodes, for testing and searching."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from model.adapters import restore_adapters
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import Parsing, ParsingOptions, fit_options
from model.adapters.token_selection import TokenSelection, TokenSelectionOptions, width_in
from model.backbones import BACKBONES
from model.backbones.clip import CLIP
from model.backbones.spec import BackboneOptions
from model.checkpoints.archives import load_strict, read_state
from model.checkpoints.published import has_published_parsing, our_names
from model.retriever import FLOAT32, Retriever
from utils.device import Precision
from utils.options import GetOptions


@dataclass(frozen=True)
class RestoredRun:
    """A model without heads, and what else its checkpoint holds."""

    checkpoint: Path
    model: Retriever
    """in evaluation mode"""
    state: Mapping[str, Tensor]
    """the whole checkpoint, under our names"""
    unused: tuple[str, ...]
    """keys of ``state`` that are not in the model"""
    unknown: tuple[str, ...]
    """keys of the checkpoint that have no name here"""
    parsing: ParsingOptions
    """PHP's flags as the checkpoint needs them"""


def restore(checkpoint: Path, get: GetOptions, precision: Precision = FLOAT32) -> RestoredRun:
    """The encoder of a checkpoint, ours or a published one. Raises UserError, which says what is wrong with it."""
    saved = read_state(checkpoint)
    state, unknown = our_names(saved)
    parsing = get(ParsingOptions)
    if parsing.php_attention is None and has_published_parsing(saved):
        parsing = replace(parsing, php_attention="batch")
    source = str(checkpoint)
    selection = get(TokenSelectionOptions)
    model, unused = restore_encoder(
        state, get(BackboneOptions), source, get(LoRAOptions), parsing, precision, selection
    )
    return RestoredRun(checkpoint, model.eval(), state, tuple(unused), tuple(unknown), parsing)


def restore_encoder(
    state: Mapping[str, Tensor],
    backbone_options: BackboneOptions,
    source: str,
    lora: LoRAOptions = LoRAOptions(),  # noqa: B008 (frozen)
    parsing_options: ParsingOptions = ParsingOptions(),  # noqa: B008 (frozen)
    precision: Precision = FLOAT32,
    selection_options: TokenSelectionOptions = TokenSelectionOptions(),  # noqa: B008 (frozen)
) -> tuple[Retriever, list[str]]:
    """The part of a checkpoint that encodes, and the keys that testing does not use; needs no CLIP archive.

    Args:
        state: weights under our names. Sizes of towers, parsing and second embedding, and LoRA's rank, are read off
            them, the rest is taken from the run's options.
        source: what to call the checkpoint in an error.

    Raises:
        UserError: weights of the towers are missing or do not fit.
    """
    family = next((name for name in BACKBONES if any(key.startswith(f"{name}.") for key in state)), CLIP.name)
    towers = _below(state, family)
    backbone = BACKBONES[family].from_state(towers, backbone_options, source)
    encoder = {f"{family}.{key}": value for key, value in restore_adapters(backbone, towers, lora).items()}
    parsing, stages = None, _below(state, "parsing")
    if stages or parsing_options.php_variant is not None:
        parsing = Parsing(fit_options(parsing_options, stages, source), backbone.spec.embed_dim)
        used = tuple(f"{stage}." for stage in parsing.stages)
        encoder |= {f"parsing.{key}": value for key, value in stages.items() if key.startswith(used)}
    selection, second = None, _below(state, "token_selection")
    if second or selection_options.is_rde:
        # in evaluation the norm has its running statistics, however they came about
        options = replace(selection_options, tse_norm="frozen")
        selection = TokenSelection(options, backbone, width_in(second))
        encoder |= {f"token_selection.{key}": value for key, value in second.items()}
    model = Retriever(backbone, parsing=parsing, precision=precision, token_selection=selection)
    load_strict(model, encoder, source)
    return model, [key for key in state if key not in encoder and not key.startswith(f"{family}.")]


def _below(state: Mapping[str, Tensor], root: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{root}."): value for key, value in state.items() if key.startswith(f"{root}.")}
