"""TODO"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.adapters.parsing import Parsing
from model.backbones.clip import CLIP
from model.backbones.spec import Encoded
from model.batch_views import Views
from model.losses.base import LossHead, PairFeatures
from model.memory_saving import in_parts


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
