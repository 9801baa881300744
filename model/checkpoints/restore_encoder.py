"""TODO"""

from collections.abc import Mapping

from torch import Tensor

from model.adapters import restore_adapters
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import Parsing, ParsingOptions, fit_options
from model.backbones.clip import CLIP, at_resolution, sizes_of
from model.backbones.spec import BackboneOptions
from model.checkpoints.archives import load_strict
from model.retriever import Retriever


def restore_encoder(
    state: Mapping[str, Tensor],
    backbone: BackboneOptions,
    source: str,
    lora: LoRAOptions = LoRAOptions(),  # noqa: B008 (frozen)
    parsing_options: ParsingOptions = ParsingOptions(),  # noqa: B008 (frozen)
) -> tuple[Retriever, list[str]]:
    """The part of a checkpoint that encodes, for testing; needs no CLIP archive.

    Args:
        state: weights under our names.
        backbone: image size and stride of the run.
        parsing_options: PHP's flags of the run; sizes that its weights show are read off them.
        source: what to call the checkpoint in an error.
        lora: scale of the LoRA, if the checkpoint has one.

    Returns:
        the model without heads, and the keys that testing does not use.

    Raises:
        ValueError: weights of the towers are missing or do not fit.
    """
    try:
        stored = sizes_of(state, "clip.")
    except KeyError as error:
        raise ValueError(f"{source}: no trained towers in it, {error} is missing") from None
    except ValueError as error:
        raise ValueError(f"{source}: no trained towers in it, {error}") from None
    sizes = at_resolution(stored, backbone)
    clip = CLIP(sizes)
    state = restore_adapters(clip, state, lora)
    parsing = None
    below = {key.removeprefix("parsing."): value for key, value in state.items() if key.startswith("parsing.")}
    if below or parsing_options.php_variant is not None:
        parsing = Parsing(fit_options(parsing_options, below, source), sizes.embed_dim)
    model = Retriever(clip, {}, {}, parsing)
    used = ("clip.", *(f"parsing.{stage}." for stage in (parsing.stages if parsing else ())))
    encoder = {key: value for key, value in state.items() if key.startswith(used)}
    load_strict(model, encoder, source)
    return model, [key for key in state if key not in encoder]
