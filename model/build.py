"""The whole model: towers, shared parts and loss heads, put together from typed options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from model.adapters import FreezeOptions, add_adapters
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import Parsing, ParsingOptions
from model.adapters.prompts import PromptOptions
from model.backbones.clip import CLIP
from model.backbones.spec import BackboneOptions
from model.cross_former import CrossFormer
from model.losses import HEADS
from model.losses.base import Sizes
from model.memory_saving import EngineOptions, set_up_towers
from model.retriever import Retriever
from utils.distributed import world_size
from utils.options import opt

PARTS: dict[str, type[nn.Module]] = {"cross_former": CrossFormer}
"""modules that several heads share; built when a head asks for one by name"""

GetOptions = Callable[[type], Any]
"""from an options dataclass to its instance"""


@dataclass(frozen=True)
class LossOptions:
    """Which losses make up the objective."""

    loss_names: str = opt("sdm+id+mlm", f"losses to sum, joined by '+', in any order: {', '.join(HEADS)}")

    def __post_init__(self) -> None:
        head_names(self.loss_names)


def head_names(loss_names: str) -> tuple[str, ...]:
    """``a+b+c`` to names, each known and given once.

    Raises:
        ValueError: names the unknown or repeated loss and the choices.
    """
    names = tuple(name.strip() for name in loss_names.split("+"))
    for name in names:
        if name not in HEADS:
            raise ValueError(f"--loss_names {loss_names}: no loss is called {name!r}; choose from {', '.join(HEADS)}")
        if names.count(name) > 1:
            raise ValueError(f"--loss_names {loss_names}: {name} is there twice")
    return names


def model_groups() -> dict[str, list[type]]:
    """Titles and option dataclasses of everything in the model, for the parser."""
    heads = [head.Options for head in HEADS.values()]
    parts = [part.Options for part in PARTS.values()]
    adapters = [LoRAOptions, PromptOptions, FreezeOptions, ParsingOptions]
    return {
        "model": [BackboneOptions, EngineOptions, *parts],
        "adapters": adapters,
        "losses": [LossOptions, *dict.fromkeys(heads)],
    }


def needed_fields(loss_names: str) -> tuple[str, ...]:
    """The batch fields that these losses read, each once."""
    return tuple(dict.fromkeys(field for name in head_names(loss_names) for field in HEADS[name].needs))


def padded_fields(loss_names: str) -> tuple[str, ...]:
    """The text fields whose padding some loss looks at; the others may be cut to their longest caption."""
    return tuple(dict.fromkeys(field for name in head_names(loss_names) for field in HEADS[name].padded))


def several_ids(loss_names: str) -> tuple[str, ...]:
    """The losses that cannot use a batch of one identity."""
    return tuple(name for name in head_names(loss_names) if HEADS[name].several_ids)


def parses(loss_names: str, options: ParsingOptions) -> bool:
    """Whether the model has PHP's parsing: a loss reads it, or its flag asks for it."""
    return options.php_variant is not None or any("parsing" in HEADS[name].adapters for name in head_names(loss_names))


def reads_padding(loss_names: str, get: GetOptions) -> bool:
    """Whether the model that these flags describe looks at the padding behind a caption."""
    options = get(ParsingOptions)
    return parses(loss_names, options) and options.php_variant != "base"


def momentum_flag(loss_names: str) -> str:
    """The flag that the published name ``--momentum`` means with these losses."""
    return "bank_momentum" if any(HEADS[name].has_bank for name in head_names(loss_names)) else "sgd_momentum"


class TrainCounts(NamedTuple):
    """How much there is to train on; sizes of classifiers and memories."""

    ids: int
    pairs: int
    images: int


def build_retriever(clip: CLIP, loss_names: str, get: GetOptions, train: TrainCounts) -> Retriever:
    """Add adapters, heads and the parts they share to the towers.

    Args:
        clip: the towers.
        loss_names: as in ``--loss_names``.
        get: gives the instance of an options dataclass.
        train: size of the training split.
    """
    add_adapters(clip, get(LoRAOptions), get(PromptOptions), get(FreezeOptions))
    set_up_towers(clip, get(EngineOptions))
    sizes = Sizes(clip.sizes.embed_dim, clip.sizes.vocab_size, train.ids, train.pairs, train.images)
    names = head_names(loss_names)
    wanted = dict.fromkeys(part for name in names for part in HEADS[name].parts)
    parts = {name: PARTS[name](get(PARTS[name].Options), sizes.embed_dim) for name in wanted}
    parsing = None
    if parses(loss_names, get(ParsingOptions)):
        parsing = Parsing(get(ParsingOptions), sizes.embed_dim)
        if parsing.over_batch and world_size() > 1:
            raise ValueError(
                "--php_attention batch: attends over the batch, of which each process has only a share; train with "
                "--php_attention tokens, or in one process"
            )
        readers = [name for name in names if "parsing" in HEADS[name].adapters]
        if readers and parsing.efp is None:
            raise ValueError(
                f"--php_variant {get(ParsingOptions).php_variant}: has no experts for the loss {readers[0]}; leave it "
                "out of --loss_names, or train efp or full (test.py takes any --php_variant of a full run)"
            )
    heads = {name: HEADS[name](get(HEADS[name].Options), sizes) for name in names}
    for name, head in heads.items():
        head.start_from(parts)
        if parsing is not None:
            head.usual_weight = parsing.loss_weights.get(name, head.usual_weight)
    model = Retriever(clip, parts, heads, parsing)
    model.accumulate = get(EngineOptions).accumulate
    return model


def check_text(clip: CLIP, text_length: int, prompts: int) -> int:
    """The length to cut captions to: ``--text_length``, or less where prompts take the room.

    Args:
        clip: the towers.
        text_length: as in ``--text_length``.
        prompts: number of prompts beside the caption.

    Raises:
        ValueError: names the flag and the limit.
    """
    if text_length > clip.sizes.context_length:
        raise ValueError(f"--text_length {text_length}: the text tower takes at most {clip.sizes.context_length}")
    return min(text_length, clip.sizes.context_length - prompts)


def parameter_summary(model: nn.Module) -> str:
    """Trained and total parameter counts, in words."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters trained"
