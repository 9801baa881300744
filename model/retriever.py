"""The dual encoder with its loss heads."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.adapters.parsing import Parsing
from model.adapters.token_selection import TokenSelection
from model.backbones.spec import Backbone, Encoded
from model.batch_views import BatchViews
from model.division import Division
from model.losses.base import LossHead, TrainingPass
from model.losses.pairwise import PairwiseLoss
from model.memory_saving import in_parts
from model.shared_part import SharedPart
from utils import UserError
from utils.device import Precision
from utils.inputs import InputFormat

FLOAT32 = Precision(torch.device("cpu"), torch.float32)


class Step(NamedTuple):
    """What the model returns for a training batch."""

    loss: Tensor
    """scalar to differentiate"""
    report: dict[str, Tensor]
    """detached scalars for the log: each weighted loss as NAME_loss, each metric of a head as NAME_METRIC"""


class Retriever(nn.Module):
    """A dual encoder with its loss heads; without heads, for testing and searching."""

    def __init__(
        self,
        backbone: Backbone,
        parts: Mapping[str, SharedPart] | None = None,
        heads: Mapping[str, LossHead] | None = None,
        parsing: Parsing | None = None,
        precision: Precision = FLOAT32,
        token_selection: TokenSelection | None = None,
        division: Division | None = None,
    ) -> None:
        """``backbone`` with its adapters; ``parts`` that several ``heads`` share, by name; what PHP and RDE have."""
        super().__init__()
        self.add_module(backbone.name, backbone)  # its name is the root of its weights' names in checkpoints
        self._backbone_name = backbone.name
        self.parsing, self.token_selection, self.division = parsing, token_selection, division
        self.parts = nn.ModuleDict(parts or {})
        self.heads = nn.ModuleDict(heads or {})
        self.precision = precision
        self.accumulate = 1
        """parts in which training encodes a batch"""
        self.to(precision.device)

    @property
    def backbone(self) -> Backbone:
        """The towers."""
        return self.get_submodule(self._backbone_name)

    def encode_image(self, images_BCHW: Tensor) -> Encoded:
        """Normalised pixels to tokens and pooled features, in the model's precision."""
        with self.precision():
            encoded = in_parts(self.backbone.encode_image, self.accumulate, images_BCHW)
            if self.token_selection is not None:
                encoded = self.token_selection.forward_image(encoded)
            return encoded if self.parsing is None else self.parsing(encoded, "image")

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Encoded:
        """Token ids to tokens and pooled features, in the model's precision; ``lengths_B``: see :class:`Backbone`."""
        with self.precision():
            encoded = in_parts(self.backbone.encode_text, self.accumulate, ids_BL, lengths_B)
            if self.token_selection is not None:
                encoded = self.token_selection.forward_text(encoded, lengths_B)
            return encoded if self.parsing is None else self.parsing(encoded, "text")

    def input_format(self, text_length: int | None = None) -> InputFormat:
        """How images and captions must be prepared; prompts may leave less room for a caption than ``text_length``.

        Without a length, as long as the text tower allows. Raises UserError where it takes fewer tokens.
        """
        spec = self.backbone.spec
        text_length = text_length or spec.context_length
        if text_length > spec.context_length:
            raise UserError(f"--text_length {text_length}: the text tower takes at most {spec.context_length} tokens")
        prompts = self.backbone.prompts
        room = spec.context_length - (0 if prompts is None else len(prompts.text()[0]))
        return InputFormat(
            tokenizer=self.backbone.tokenizer,
            text_length=min(text_length, room),
            reads_padding=self.reads_padding,
            image_size=spec.image_size,
            pixel_mean=spec.pixel_mean,
            pixel_std=spec.pixel_std,
            resize_filter=spec.eval_filter,
        )

    @property
    def embeddings(self) -> dict[str, int]:
        """Names and widths of what :attr:`Encoded.feature` holds side by side; empty if it holds only one embedding."""
        if self.token_selection is None:
            return {}
        return {"BGE": self.backbone.spec.embed_dim, "TSE": self.token_selection.width}

    @property
    def feature_width(self) -> int:
        """Of :attr:`Encoded.feature`."""
        return sum(self.embeddings.values()) or self.backbone.spec.embed_dim

    @property
    def reads_padding(self) -> bool:
        """Whether the padding behind a caption changes its feature, so that it must not be cut off."""
        parsed = self.parsing is not None and self.parsing.stages
        selected = self.token_selection is not None and self.token_selection.norm_of_batch
        return bool(parsed) or selected or not self.backbone.spec.text_is_causal

    @property
    def attends_over_batch(self) -> bool:
        """Whether a feature depends on the other samples of its batch."""
        return self.parsing is not None and self.parsing.over_batch

    @property
    def drops_text(self) -> bool:
        """Whether encoding the same captions twice gives two results."""
        return self.training and self.backbone.text_dropout > 0

    def expert_use(self) -> dict[str, Tensor]:
        """Tokens (blocks, experts) that each expert has seen, by modality; empty without experts."""
        return {} if self.parsing is None else self.parsing.expert_use()

    @property
    def needed_fields(self) -> tuple[str, ...]:
        """The batch fields that the heads read, each once."""
        fields = [field for head in self.heads.values() for field in head.needs]
        return tuple(dict.fromkeys(fields if self.division is None else (*fields, "index")))

    @property
    def padded_fields(self) -> tuple[str, ...]:
        """The text fields whose padding some head looks at."""
        return tuple(dict.fromkeys(field for head in self.heads.values() for field in head.padded))

    def blocks(self) -> Iterator[nn.Module]:
        """Everything that memory saving and compilation apply to."""
        yield from self.backbone.blocks()
        for part in self.parts.values():
            yield from part.blocks()
        if self.parsing is not None:
            yield from self.parsing.blocks()

    def forward(self, batch: Mapping[str, Tensor], epoch: int = 1, epoch_share: float = 0.0) -> tuple[Step, BatchViews]:
        """The objective of a batch with the fields that :attr:`needed_fields` lists; arguments: :class:`BatchViews`."""
        views = BatchViews(batch, self, epoch, epoch_share)
        weighted: list[Tensor] = []
        report: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            term = head(views)
            weighted.append(head.weight * term.loss)
            report[f"{name}_loss"] = weighted[-1].detach()
            report |= {f"{name}_{metric}": value for metric, value in term.metrics.items()}
        if self.parsing is not None and self.training:
            self.parsing.count(views.routing)
        total = torch.stack(weighted).sum()
        return Step(total, {"loss": total.detach(), **report}), views

    def before_epoch(self, training_pass: TrainingPass) -> Mapping[str, float]:
        """Let the heads look at the training split, and divide it; scalars that say what the division found."""
        for head in self.heads.values():
            head.before_epoch(training_pass)
        return {} if self.division is None else self._divide(training_pass, self.division)

    @torch.no_grad()
    def _divide(self, training_pass: TrainingPass, division: Division) -> Mapping[str, float]:
        judge = next(head for head in self.heads.values() if isinstance(head, PairwiseLoss))
        loss_KN = torch.full((len(self.embeddings) or 1, len(division.clean)), torch.nan, device=self.precision.device)
        self.eval()
        for batch in training_pass.batches((*judge.needs, "index"), division.options.division_plain):
            views = BatchViews(batch, self, training_pass.epoch)
            loss_KN[:, views["index"]] = torch.stack(judge.of_views(views))
        return division.divide(loss_KN, training_pass.seed, training_pass.epoch, training_pass.matched_N)

    def after_step(self, views: BatchViews) -> None:
        """Let the heads update their memories, and shared parts what they keep within bounds."""
        for head in self.heads.values():
            head.after_step(views)
        for part in self.parts.values():
            part.after_step()

    def open_files(self, folder: Path, step: int) -> None:
        """Let the heads open files in a run directory, as they were after ``step`` steps of the run."""
        for head in self.heads.values():
            head.open(folder, step)

    def saved(self) -> None:
        """Tell the heads that a checkpoint has been written."""
        for head in self.heads.values():
            head.saved()

    def epoch_report(self, train_pids: Tensor) -> list[str]:
        """What the heads say about an epoch; ``train_pids``: the true identity of every training pair, by index."""
        lines = []
        for name, head in self.heads.items():
            if line := head.epoch_report(train_pids):
                lines.append(f"{name}: {line}")
            if unusable := int(head.unusable):
                batches = "1 batch" if unusable == 1 else f"{unusable} batches"
                lines.append(f"{name}: {batches} of a single identity could not be used and counted as 0")
                head.unusable.zero_()
        return lines

    def parameter_roles(self) -> Iterator[tuple[str, nn.Parameter, str]]:
        """Every trained parameter with the optimiser role that its module declares for it ("plain" without one)."""
        claims = {
            ".".join(filter(None, (prefix, below))): role
            for prefix, module in self.named_modules()
            for below, role in getattr(module, "roles", {}).items()
        }
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                owners = [prefix for prefix in claims if not prefix or f"{name}.".startswith(f"{prefix}.")]
                yield name, parameter, claims[max(owners, key=len)] if owners else "plain"

    def parameter_summary(self) -> str:
        """Trained and total parameter counts, in words."""
        total = sum(parameter.numel() for parameter in self.parameters())
        trained = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return f"{trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters trained"
