"""The protocol of a loss head, and what most losses share.

Shape letters: B batch (rows: images, columns: texts), D embedding, N pairs of the training split.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch_views import BatchViews
from utils.options import opt

ABSENT = -1e4
"""a logit whose exponential is exactly 0 and whose product with 0 is, unlike infinity's, 0"""


class LossTerm(NamedTuple):
    """What a head returns."""

    loss: Tensor
    """unweighted scalar"""
    metrics: dict[str, Tensor]
    """detached scalars, for the log only"""


class PairFeatures(NamedTuple):
    """Every pair of the training split, as the model encodes it without augmentation."""

    image_ND: Tensor
    """features, not necessarily normalised"""
    text_ND: Tensor
    pids_N: Tensor
    image_ids_N: Tensor


class TrainingPass:
    """The training split as a head may look at it before an epoch: encoded once, and only if some head asks."""

    def __init__(
        self,
        epoch: int,
        encode: Callable[[], PairFeatures],
        batches: Callable[[tuple[str, ...], bool], Iterable[Mapping[str, Tensor]]] = lambda fields, plain: (),
        seed: int = 0,
        matched_N: Tensor | None = None,
    ) -> None:
        """
        Args:
            epoch: the one that comes next, from 1 on.
            encode: a pass over the training split.
            batches: every training pair once, in random batches with these fields, augmented by draws of their own;
                or with True as they are, in the same full batches every time (the last one filled up with others).
            seed: of the run.
            matched_N: (N,) bool, which pairs belong together, where captions were exchanged on purpose.
        """
        self.epoch, self._encode, self.batches = epoch, encode, batches
        self.seed, self.matched_N = seed, matched_N

    @cached_property
    def features(self) -> PairFeatures:
        """Of every training pair, from the model as it is now."""
        return self._encode()


class Sizes(NamedTuple):
    """What a head may need to know about the towers and the training split."""

    embed_dim: int
    vocab_size: int
    num_ids: int
    num_pairs: int
    num_images: int
    text_length: int = 77
    """tokens that a caption is truncated to"""


@dataclass(frozen=True)
class NoOptions:
    """For heads without a flag of their own."""


@dataclass(frozen=True)
class SimilarityOptions:
    """Shared by every loss on the similarity matrix."""

    temperature: float = opt(0.02, "temperature of the cosine logits (constant)", above=0)


class LossHead(nn.Module):
    """A loss with the layers and memories that belong to it.

    A head declares its flags, the batch fields it reads and the shared parts it uses; nothing else knows its name.
    """

    Options: ClassVar[type] = NoOptions
    needs: ClassVar[tuple[str, ...]] = ("images", "caption_ids")
    """batch fields"""
    padded: ClassVar[tuple[str, ...]] = ()
    """text fields whose padding has an influence on this loss"""
    parts: ClassVar[tuple[str, ...]] = ()
    """names of shared modules"""
    adapters: ClassVar[tuple[str, ...]] = ()
    """names of adapters whose output this loss reads"""
    weight_flag: ClassVar[str] = ""
    """option that holds :attr:`weight`; None there, or no such option, means 1 or what a preset says"""
    reads_early: ClassVar[bool] = False
    """whether this loss looks at tokens some blocks before the end of the towers"""
    roles: ClassVar[dict[str, str]] = {}
    """optimiser role of the parameters below a name ("" for all); without an entry: "plain" """

    def __init__(self, options: object, sizes: Sizes) -> None:
        super().__init__()
        self.options = options
        given = getattr(options, self.weight_flag) if self.weight_flag else None
        self.weight: float = 1.0 if given is None else given
        """factor of this loss in the total"""
        self.has_given_weight = given is not None
        self.register_buffer("unusable", torch.zeros((), dtype=torch.int64), persistent=False)
        """batches of this epoch that the loss could not use"""

    def forward(self, views: BatchViews) -> LossTerm:
        """Compute the loss of one batch, in float32."""
        raise NotImplementedError

    def start_from(self, parts: Mapping[str, nn.Module]) -> None:
        """Initialise what depends on shared parts, once they are built; most heads need nothing."""

    def before_epoch(self, training_pass: TrainingPass) -> None:
        """Look at the training split before an epoch begins, to fill a memory for instance; most heads need nothing."""

    def open(self, folder: Path, step: int) -> None:
        """Open files in a run directory, as they were after ``step`` steps of the run; most heads have none."""

    def saved(self) -> None:
        """A checkpoint has just been written, to which files may have to be set back; most heads have none."""

    def after_step(self, views: BatchViews) -> None:
        """Update memories once the optimiser has made its step; most heads have none."""

    def epoch_report(self, train_pids: Tensor) -> str:
        """What to log after an epoch, or ""; ``train_pids``: the true identity of every training pair, by index."""
        return ""

    def usable(self, loss: Tensor, pids_B: Tensor) -> Tensor:
        """The loss (a finite scalar), or 0 with zero gradients for a batch of one identity, which is then counted."""
        is_usable = (pids_B != pids_B[:1]).any()  # stays on the device, so that nothing waits for it
        self.unusable += ~is_usable
        return loss * is_usable


def cosines(image_BD: Tensor, text_BD: Tensor) -> Tensor:
    """Cosine similarities, images in rows and texts in columns."""
    return F.normalize(image_BD, dim=-1) @ F.normalize(text_BD, dim=-1).T


def same_identity(pids_B: Tensor) -> Tensor:
    """1.0 where two entries of the batch share their identity, else 0.0."""
    return (pids_B[:, None] == pids_B[None, :]).float()


def projection_matching(
    logits_BB: Tensor, target_BB: Tensor, eps: float = 1e-8, present_B: Tensor | None = None
) -> Tensor:
    """KL divergence from softmax(logits) to a target distribution, mean over rows, in nats.

    The form that CMPM (Zhang & Lu, ECCV 2018, eq. 4) and SDM (Jiang & Ye, CVPR 2023, eq. 3) share. Rows and columns not
    in ``present_B`` are left out without selecting the others: the host would have to wait for their number.
    """
    if present_B is not None:
        logits_BB = logits_BB.masked_fill(~present_B, ABSENT)
    row_B = divergence_of_rows(logits_BB, target_BB, eps)
    return row_B.mean() if present_B is None else (row_B * present_B).sum() / present_B.sum()


def divergence_of_rows(logits_BB: Tensor, target_BB: Tensor, eps: float = 1e-8) -> Tensor:
    """(B,) the divergence of every row from its target; see :func:`projection_matching`."""
    log_p_BB = F.log_softmax(logits_BB, dim=1)
    return (log_p_BB.exp() * (log_p_BB - torch.log(target_BB + eps))).sum(dim=1)


def mean_classification(views: BatchViews, logits_PC: Tensor, target_P: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats and the share that is right (no gradient), over all processes; 0 where P is 0."""
    total = F.cross_entropy(logits_PC, target_P, reduction="sum")
    right = (logits_PC.detach().argmax(dim=1) == target_P).float().sum()
    loss, accuracy = views.mean(torch.stack([total, right]), len(target_P))
    return loss, accuracy.detach()
