"""The whole model: towers, shared parts and loss heads, put together from typed options."""

import difflib
import logging
from dataclasses import dataclass

from model.adapters import FreezeOptions, add_adapters
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import LEAK, Parsing, ParsingOptions
from model.adapters.prompts import PromptOptions
from model.adapters.token_selection import RDEOptions, TokenSelection, TokenSelectionOptions
from model.backbones.spec import Backbone, BackboneOptions
from model.cross_former import CrossFormer
from model.division import Division, DivisionOptions
from model.logit_scale import LogitScale
from model.losses import HEADS
from model.losses.base import Sizes
from model.losses.nam import read_early
from model.losses.pairwise import PairwiseLoss
from model.memory_saving import MemoryOptions, set_up_blocks
from model.presets import preset_weights
from model.retriever import FLOAT32, Retriever
from model.shared_part import SharedPart
from utils import UserError
from utils.device import Precision
from utils.distributed import world_size
from utils.options import GetOptions, opt

log = logging.getLogger("descry")

RDE_NAMES = {"SDM": "sdm", "InfoNCE": "itc"}
"""what RDE's command lines call losses that we have under another name"""
PARTS: dict[str, type[SharedPart]] = {"cross_former": CrossFormer, "logit_scale": LogitScale}
"""modules that several heads share; built when a head asks for one by name"""


PAIRWISE = ", ".join(name for name, head in HEADS.items() if issubclass(head, PairwiseLoss))
"""losses that know of a second embedding and of the division"""


@dataclass(frozen=True)
class LossOptions(RDEOptions):
    """Which losses make up the objective."""

    loss_names: str = opt("sdm+id+mlm", f"losses to sum, joined by '+', in any order: {', '.join(HEADS)}")

    def __post_init__(self) -> None:
        for name in [*self.names, *self.labels]:
            near = difflib.get_close_matches(name, HEADS, n=1)
            if name not in HEADS and (near or not self.is_rde or not self.names):
                hint = f"; did you mean {near[0]}?" if near else f"; choose from {', '.join(HEADS)}"
                raise UserError(f"--loss_names {self.loss_names}: no loss is called {name!r}{hint}")
            if self.names.count(name) > 1:
                raise UserError(f"--loss_names {self.loss_names}: {name} is there twice")

    @property
    def _parts(self) -> list[str]:
        parts = [part.strip() for part in self.loss_names.split("+")]
        return [RDE_NAMES.get(part, part) for part in parts] if self.is_rde else parts

    @property
    def names(self) -> tuple[str, ...]:
        """``a+b+c`` as names."""
        return tuple(part for part in self._parts if part in HEADS or not self.is_rde)

    @property
    def labels(self) -> tuple[str, ...]:
        """Parts that are no loss but, as RDE's command lines have them, a label of the run."""
        return tuple(part for part in self._parts if part not in self.names)


def model_options() -> dict[str, list[type]]:
    """Titles and option dataclasses of everything in the model, for the parser."""
    return {
        "model": [BackboneOptions, MemoryOptions, *(part.Options for part in PARTS.values())],
        "adapters": [LoRAOptions, PromptOptions, FreezeOptions, ParsingOptions, TokenSelectionOptions],
        "losses": [LossOptions, DivisionOptions, *dict.fromkeys(head.Options for head in HEADS.values())],
    }


def build_retriever(
    backbone: Backbone, get: GetOptions, ids: int, images: int, pairs: int, precision: Precision = FLOAT32
) -> Retriever:
    """Add adapters, heads and the parts they share to the towers.

    Classifiers and memories have the sizes of the training split: its ``ids``, ``images`` and ``pairs``.

    Raises:
        UserError: flags that do not fit each other or the towers.
    """
    add_adapters(backbone, get(LoRAOptions), get(PromptOptions), get(FreezeOptions))
    names, width = get(LossOptions).names, backbone.spec.embed_dim
    length = get(BackboneOptions).text_length or backbone.spec.context_length
    sizes = Sizes(width, backbone.spec.vocab_size, ids, pairs, images, length)
    if readers := [name for name in names if HEADS[name].reads_early]:
        read_early(backbone, readers[0])
    wanted = dict.fromkeys(part for name in names for part in HEADS[name].parts)
    parts = {name: PARTS[name].built_for(get(PARTS[name].Options), backbone.spec) for name in wanted}
    parsing = _parsing(get(ParsingOptions), names, width)
    heads = {name: HEADS[name](get(HEADS[name].Options), sizes) for name in names}
    for head in heads.values():
        head.start_from(parts)
    for name, weight in preset_weights(names).items():
        if name in heads and not heads[name].has_given_weight:
            heads[name].weight = weight
            log.info("weight of the loss %s: %g, as PHP was published (because the loss aux is used)", name, weight)
    selection, division = _robust_embedding(get, names, backbone, pairs)
    model = Retriever(backbone, parts, heads, parsing, precision, selection, division)
    set_up_blocks(model.blocks(), get(MemoryOptions))
    model.accumulate = get(MemoryOptions).accumulate
    return model


def _robust_embedding(
    get: GetOptions, names: tuple[str, ...], backbone: Backbone, pairs: int
) -> tuple[TokenSelection | None, Division | None]:
    """RDE's second embedding and its division of the training pairs, where flags ask for them."""
    selection, division = get(TokenSelectionOptions), get(DivisionOptions)
    readers = [name for name in names if issubclass(HEADS[name], PairwiseLoss)]
    for flag, is_on in (("--select_ratio", selection.is_rde), ("--division consensus", division.is_on)):
        if is_on and not readers:
            raise UserError(f"{flag}: has an effect on the losses {PAIRWISE} only, and --loss_names has none of them")
    if selection.is_rde:
        log.info(
            "--select_ratio: RDE's second embedding, of %g of the tokens, batch norm %s; %s of both embeddings",
            *(selection.select_ratio, selection.tse_norm, " and ".join(readers)),
        )
    if labels := get(LossOptions).labels:
        log.info("in --loss_names, %s is read as a label of the run, as RDE does", " and ".join(labels))
    for name in ("TAL", "TRL"):
        if name in names:
            flags = get(HEADS[name].Options)
            system = "RDE's" if flags.is_rde else "ECCL's" if name == "TAL" else "the"
            log.info("%s: %s form, tau %g, margin %g", name, system, flags.temperature, flags.distance)
    if division.is_on:
        log.info("division of the training pairs before every epoch, by %s, fit %s", readers[0], division.division_fit)
    return (
        TokenSelection(selection, backbone) if selection.is_rde else None,
        Division(division, pairs) if division.is_on else None,
    )


def _parsing(options: ParsingOptions, names: tuple[str, ...], width: int) -> Parsing | None:
    """PHP's parsing, where a loss reads it or its flag asks for it."""
    readers = [name for name in names if "parsing" in HEADS[name].adapters]
    if not readers and options.php_variant is None:
        return None
    parsing = Parsing(options, width)
    if parsing.over_batch:
        log.warning(LEAK)
    if parsing.over_batch and world_size() > 1:
        raise UserError(
            "--php_attention batch: attends over the batch, of which each process has only a share; train with "
            "--php_attention tokens, or in one process"
        )
    if readers and parsing.efp is None:
        raise UserError(
            f"--php_variant {options.php_variant}: has no experts for the loss {readers[0]}; leave it out of "
            "--loss_names, or train efp or full (test.py takes any --php_variant of a full run)"
        )
    return parsing
