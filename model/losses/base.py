"""The protocol of a loss head, and what most losses share.

Shape letters: B batch (rows: images, columns: texts), D embedding, N pairs of the training split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_views import Views
from utils.options import opt


class LossTerm(NamedTuple):
    """What a head returns."""

    loss: Tensor
    """unweighted scalar"""
    metrics: dict[str, Tensor]
    """detached scalars, for the log only"""


class PairFeatures(NamedTuple):
    """Every pair of the training split, seen by the model before training."""

    image_ND: Tensor
    """features, not necessarily normalised"""
    text_ND: Tensor
    pids_N: Tensor
    image_ids_N: Tensor


class Sizes(NamedTuple):
    """What a head may need to know about the towers and the training split."""

    embed_dim: int
    vocab_size: int
    num_ids: int
    num_pairs: int
    num_images: int


@dataclass(frozen=True)
class NoOptions:
    """For heads without a flag of their own."""


@dataclass(frozen=True)
class SimilarityOptions:
    """Shared by every loss on the similarity matrix."""

    temperature: float = opt(0.02, "temperature of the cosine logits (constant)")

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"--temperature {self.temperature}: expected a number above 0")


class LossHead(nn.Module):
    """A loss with the layers and memories that belong to it.

    A head declares its flags, the batch fields it reads and the shared parts it uses; nothing else knows its name.
    """

    Options: ClassVar[type] = NoOptions
    needs: ClassVar[tuple[str, ...]] = ("images", "caption_ids")
    """batch fields"""
    padded: ClassVar[tuple[str, ...]] = ()
    """text fields whose padding has an influence on this loss"""
    several_ids: ClassVar[bool] = False
    """whether a batch of one identity cannot be used"""
    parts: ClassVar[tuple[str, ...]] = ()
    """names of shared modules"""
    adapters: ClassVar[tuple[str, ...]] = ()
    """names of adapters whose output this loss reads"""
    weight_flag: ClassVar[str] = ""
    """option that holds the factor of this loss; None there means :attr:`usual_weight`"""
    usual_weight: float = 1.0
    """factor where no flag says otherwise; an adapter may bring its own"""
    has_bank: ClassVar[bool] = False
    """whether :meth:`fill_bank` must be called before training"""
    roles: ClassVar[dict[str, str]] = {}
    """optimiser role of the parameters below a name ("" for all); without an entry: "plain" """

    def __init__(self, options: object, sizes: Sizes) -> None:
        super().__init__()
        self.options = options
        self.sizes = sizes

    @property
    def weight(self) -> float:
        """Factor of this loss in the total."""
        given = getattr(self.options, self.weight_flag) if self.weight_flag else None
        return self.usual_weight if given is None else given

    def forward(self, views: Views) -> LossTerm:
        """Compute the loss of one batch, in float32."""
        raise NotImplementedError

    def start_from(self, parts: Mapping[str, nn.Module]) -> None:
        """Initialise what depends on shared parts, once they are built; most heads need nothing."""

    def fill_bank(self, pairs: PairFeatures) -> None:
        """Start a memory bank from the features of all training pairs; most heads have none."""

    def after_backward(self, views: Views) -> None:
        """Update memories, once the gradients are there; most heads have none."""

    def epoch_report(self, train_pids: Tensor) -> str:
        """What to log after an epoch, or ""; ``train_pids``: the true identity of every training pair, by index."""
        return ""


def cosines(image_BD: Tensor, text_BD: Tensor) -> Tensor:
    """Cosine similarities, images in rows and texts in columns."""
    return F.normalize(image_BD, dim=-1) @ F.normalize(text_BD, dim=-1).T


def same_identity(pids_B: Tensor) -> Tensor:
    """1.0 where two entries of the batch share their identity, else 0.0."""
    return (pids_B[:, None] == pids_B[None, :]).float()


def projection_matching(logits_BB: Tensor, target_BB: Tensor, eps: float = 1e-8) -> Tensor:
    """KL divergence from softmax(logits) to a target distribution, row by row, in nats.

    The form that CMPM (Zhang & Lu, ECCV 2018, eq. 4) and SDM (Jiang & Ye, CVPR 2023, eq. 3) share.
    """
    log_p_BB = F.log_softmax(logits_BB, dim=1)
    return (log_p_BB.exp() * (log_p_BB - torch.log(target_BB + eps))).sum(dim=1).mean()
