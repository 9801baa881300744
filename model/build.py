"""The whole model: towers, shared parts and loss heads, put together from typed options."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.adapters import FreezeOptions, add_adapters, restore_adapters
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import Parsing, ParsingOptions, fit_options
from model.adapters.prompts import PromptOptions
from model.clip import CLIP, Encoded
from model.cross import CrossFormer
from model.engine import EngineOptions, in_parts, set_up_towers
from model.losses import HEADS
from model.losses.base import LossHead, PairFeatures, Sizes
from model.views import Views
from model.weights import BackboneOptions, at_resolution, load_strict, sizes_of
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


def option_groups() -> dict[str, list[type]]:
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


class Step(NamedTuple):
    """What the model returns for a training batch."""

    loss: Tensor
    """scalar to differentiate"""
    report: dict[str, Tensor]
    """detached scalars for the log: each weighted loss as NAME_loss, and the heads' metrics"""


class Retriever(nn.Module):
    """A dual encoder with its loss heads."""

    def __init__(
        self,
        clip: CLIP,
        parts: Mapping[str, nn.Module],
        heads: Mapping[str, LossHead],
        parsing: Parsing | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.parsing = parsing
        self.parts = nn.ModuleDict(parts)
        self.heads = nn.ModuleDict(heads)
        self.accumulate = 1
        """parts in which training encodes a batch"""

    def encode_image(self, images_BCHW: Tensor) -> Encoded:
        """Normalised pixels to tokens and pooled features."""
        encoded = in_parts(self.clip.encode_image, images_BCHW, self.accumulate)
        return encoded if self.parsing is None else self.parsing(encoded, "image")

    def encode_text(self, ids_BL: Tensor) -> Encoded:
        """Token ids to tokens and pooled features."""
        encoded = in_parts(self.clip.encode_text, ids_BL, self.accumulate)
        return encoded if self.parsing is None else self.parsing(encoded, "text")

    @property
    def reads_padding(self) -> bool:
        """Whether the padding behind a caption changes its feature, so that it must not be cut off."""
        return self.parsing is not None and self.parsing.reads_padding

    @property
    def attends_over_batch(self) -> bool:
        """Whether a feature depends on the other samples of its batch."""
        return self.parsing is not None and self.parsing.over_batch

    def expert_use(self) -> dict[str, Tensor]:
        """Tokens (blocks, experts) that each expert has seen, by modality; empty without experts."""
        return {} if self.parsing is None else self.parsing.expert_use()

    def forward(
        self,
        batch: Mapping[str, Tensor],
        epoch: int = 1,
        precision: Callable[[], AbstractContextManager] = nullcontext,
    ) -> tuple[Step, Views]:
        """The objective of one batch.

        Args:
            batch: the fields that :func:`needed_fields` lists.
            epoch: 1 in the first epoch.
            precision: context in which network layers run; losses run outside it, in float32.
        """
        views = Views(batch, self.encode_image, self.encode_text, self.parts, precision, epoch)
        weighted: list[Tensor] = []
        report: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            term = head(views)
            weighted.append(head.weight * term.loss)
            report[f"{name}_loss"] = weighted[-1].detach()
            report.update(term.metrics)
        if self.parsing is not None and self.training:
            self.parsing.count(views.routing)
        total = torch.stack(weighted).sum()
        return Step(total, {"loss": total.detach(), **report}), views

    def after_backward(self, views: Views) -> None:
        """Let the heads update their memories."""
        for head in self.heads.values():
            head.after_backward(views)

    def epoch_report(self, train_pids: Tensor) -> list[str]:
        """What the heads say about an epoch; ``train_pids``: the true identity of every training pair, by index."""
        lines = {name: head.epoch_report(train_pids) for name, head in self.heads.items()}
        return [f"{name}: {line}" for name, line in lines.items() if line]

    @property
    def has_banks(self) -> bool:
        """Whether some head has a memory bank that must be filled before training."""
        return any(head.has_bank for head in self.heads.values())

    def fill_banks(self, pairs: PairFeatures) -> None:
        """Start the heads' memory banks from the features of all training pairs."""
        for head in self.heads.values():
            head.fill_bank(pairs)

    def parameter_roles(self) -> Iterator[tuple[str, nn.Parameter, str]]:
        """Every trained parameter with the optimiser role that its module declares for it ("plain" without one)."""
        claims: dict[str, str] = {}
        for prefix, module in self.named_modules():
            for below, role in getattr(module, "roles", {}).items():
                claims[".".join(filter(None, (prefix, below)))] = role
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                owners = [prefix for prefix in claims if not prefix or f"{name}.".startswith(f"{prefix}.")]
                yield name, parameter, claims[max(owners, key=len)] if owners else "plain"


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
