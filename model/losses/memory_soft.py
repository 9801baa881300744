"""Identity association over the whole training split, through memory banks of every pair's features; needs no labels.

Shape letters: B batch, D embedding, N pairs of the training split, K bank neighbours of a pair (3, less if N < 4),
A = B + B K rows: the batch, then the K neighbours of its first pair, of its second pair, and so on.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, Sizes, cosines, projection_matching
from model.losses.itc1 import EPS, SCALE
from utils.options import opt

NEIGHBOURS = 3
_NONE, _UNSEEN = -1, -2
"""in the record of neighbours: no neighbour in this place; a pair that this epoch has not come to"""


@dataclass(frozen=True)
class MemorySoftOptions:
    """Flags of the memory_soft loss."""

    id_threshod: float = opt(
        0.7, "memory_soft: cosine above which a pair in the image bank is a neighbour (published)", least=-1, most=1
    )
    soft_scale: float = opt(1.0, "memory_soft: scale of the softmax over neighbours' cosines")
    alpha_mom: float = opt(0.9, "memory_soft: share of the new feature when a bank row is updated", least=0, most=1)


class Neighbours(NamedTuple):
    """What the image bank associates with each pair of a batch."""

    row_BK: Tensor
    """rows of the bank, nearest first"""
    cosine_BK: Tensor
    is_near_BK: Tensor
    """whether the cosine exceeds the threshold; the others count for nothing"""


@torch.no_grad()
def find_neighbours(image_BD: Tensor, image_bank_ND: Tensor, threshold: float) -> Neighbours:
    """The rows of the image bank that come next to each image after the nearest one, which is taken to be its own.

    Neither side need be normalised. A bank row of zeros (not seen yet) is nobody's neighbour unless ``threshold``, the
    cosine that a neighbour must exceed, is negative.
    """
    # The bank is the only large tensor here: dividing the products by its norms saves writing a normalised copy.
    norm_N = torch.linalg.vector_norm(image_bank_ND, dim=1).clamp_min(1e-12)
    cosine_BN = (F.normalize(image_BD, dim=-1) @ image_bank_ND.T).div_(norm_N)
    nearest = cosine_BN.topk(min(NEIGHBOURS + 1, len(image_bank_ND)), dim=1)
    cosine_BK, row_BK = nearest.values[:, 1:], nearest.indices[:, 1:]
    return Neighbours(row_BK, cosine_BK, cosine_BK > threshold)


@torch.no_grad()
def association_target(near: Neighbours, soft_scale: float) -> Tensor:
    """(A, A) target distributions in rows: all entries of one pair are positives of each other.

    The batch's own rows are less sure of their neighbours: there a neighbour's logit is 1 minus its share in
    softmax(soft_scale * [1, cosines]). Columns of absent neighbours are 0; their rows are for the caller to leave out.
    """
    batch, places = near.row_BK.shape
    cosine_BK = near.cosine_BK.masked_fill(~near.is_near_BK, -torch.inf)
    share_BS = F.softmax(soft_scale * F.pad(cosine_BK, (1, 0), value=1.0), dim=1)
    own_B = torch.arange(batch, device=near.row_BK.device)
    anchor_A = torch.cat([own_B, own_B.repeat_interleave(places)])  # which pair of the batch a row belongs to
    label_AA = (anchor_A[:, None] == anchor_A[None, :]).float()
    label_AA[:batch, batch:] *= (1 - share_BS[:, 1:]).flatten()
    positive_AA = (label_AA != 0) & _present(near)[None, :]
    return F.softmax(label_AA.masked_fill(~positive_AA, -torch.inf), dim=1)


def _present(near: Neighbours) -> Tensor:
    """(A,) whether a row takes part."""
    return torch.cat([near.is_near_BK.new_ones(len(near.is_near_BK)), near.is_near_BK.flatten()])


def memory_soft_loss(
    image_BD: Tensor, text_BD: Tensor, near: Neighbours, image_bank_ND: Tensor, text_bank_ND: Tensor, soft_scale: float
) -> Tensor:
    """Identity association with bank neighbours (DGCMIA: Zhang et al., 2025, global granularity), in nats.

    Images are matched with texts and texts with images, over the batch and the bank rows of its neighbours; the sum of
    both directions, each a mean over the rows that are there. Features need not be normalised; the banks, by index of
    the training pair, get no gradient. ``soft_scale``: how sharply a neighbour's cosine lowers its label.
    """
    rows = near.row_BK.flatten()
    image_AD = torch.cat([image_BD, image_bank_ND[rows]])
    text_AD = torch.cat([text_BD, text_bank_ND[rows]])
    logits_AA = SCALE * cosines(image_AD, text_AD)
    target = association_target(near, soft_scale), EPS, _present(near)
    return projection_matching(logits_AA, *target) + projection_matching(logits_AA.T, *target)


class MemorySoft(LossHead):
    """:func:`memory_soft_loss` over banks that follow training; the first epoch only fills them. Reads no identity."""

    Options = MemorySoftOptions
    needs = ("images", "caption_ids", "index")

    def __init__(self, options: MemorySoftOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.register_buffer("image_bank", torch.zeros(sizes.num_pairs, sizes.embed_dim))
        self.register_buffer("text_bank", torch.zeros(sizes.num_pairs, sizes.embed_dim))
        # only for the report after the epoch, so no weight; last.pth keeps it all the same
        unseen = torch.full((sizes.num_pairs, NEIGHBOURS), _UNSEEN, dtype=torch.int32)
        self.register_buffer("neighbours", unseen, persistent=False)

    def forward(self, views: BatchViews) -> LossTerm:
        """One scalar in nats, 0 in the first epoch, with the mean number of neighbours of a pair."""
        image_BD, text_BD = views.image().pooled, views.text().pooled
        if views.epoch == 1:
            # 0, yet part of the graph: the loss may be the only one
            return LossTerm(0 * (image_BD.sum() + text_BD.sum()), {"neighbours": image_BD.new_zeros(())})
        near = find_neighbours(image_BD, self.image_bank, self.options.id_threshod)
        loss = memory_soft_loss(image_BD, text_BD, near, self.image_bank, self.text_bank, self.options.soft_scale)
        found_BK = near.row_BK.masked_fill(~near.is_near_BK, _NONE)
        padded_B3 = F.pad(found_BK, (0, NEIGHBOURS - found_BK.shape[1]), value=_NONE)
        self.neighbours[views["index"]] = padded_B3.to(self.neighbours.dtype)
        return LossTerm(loss, {"neighbours": near.is_near_BK.sum(dim=1).float().mean()})

    @torch.no_grad()
    def after_step(self, views: BatchViews) -> None:
        """Move the bank rows of the batch to its features: all the way in the first epoch, later by ``--alpha_mom``."""
        index_B = views["index"]
        share = 1.0 if views.epoch == 1 else self.options.alpha_mom
        for bank_ND, new_BD in ((self.image_bank, views.image().pooled), (self.text_bank, views.text().pooled)):
            bank_ND[index_B] = share * new_BD + (1 - share) * bank_ND[index_B]

    def epoch_report(self, train_pids: Tensor) -> str:
        """How many pairs had 0 to 3 neighbours, and what share of these really is the same person; then start anew."""
        pair_M = (self.neighbours[:, 0] != _UNSEEN).nonzero().squeeze(1)
        if not len(pair_M):
            return ""
        found_M3 = self.neighbours[pair_M].long()
        is_near_M3 = found_M3 != _NONE
        train_pids = train_pids.to(found_M3.device)
        is_right_M3 = (train_pids[found_M3] == train_pids[pair_M][:, None]) & is_near_M3
        right, total = int(is_right_M3.sum()), int(is_near_M3.sum())
        counts = torch.bincount(is_near_M3.sum(dim=1), minlength=NEIGHBOURS + 1).tolist()
        self.neighbours.fill_(_UNSEEN)
        shown = ", ".join(f"{count} with {number}" for number, count in enumerate(counts))
        share = f"{100 * right / total:.1f} % of these have the same identity" if total else "none to check"
        return f"neighbours of {len(pair_M)} pairs: {shown}; {share} (labels are read for this line only)"
