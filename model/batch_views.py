"""One batch as the loss heads see it: every field is encoded at most once per step, and by whoever asks first.

A batch may be spread over several processes. Heads see it whole and need not know. Tokens stay where they were made:
a head that works on them does so for this process's share, and takes the mean over all shares.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.backbones.spec import Encoded
from utils.distributed import all_sum, gather_rows, rank, world_size

if TYPE_CHECKING:
    from model.retriever import Retriever


class BatchViews:
    """Lazy encodings of one batch.

    Two field names that hold the same tensor (published IRRA masks captions in place, so its clean and masked captions
    are one) share one encoding.
    """

    def __init__(
        self, batch: Mapping[str, Tensor], model: "Retriever", epoch: int = 1, epoch_share: float = 0.0
    ) -> None:
        """
        Args:
            batch: this process's share, by field. A text field F stands beside ``F_lengths``, its captions' lengths.
            model: encodes it.
            epoch: 1 in the first epoch.
            epoch_share: share of the epoch's steps that are done.
        """
        self._batch, self._model = batch, model
        self._encoded: dict[int, Encoded] = {}
        self._again: dict[int, Encoded] = {}
        self._gathered: dict[str, Tensor] = {}
        self._bounds = batch["share_bounds"].tolist() if world_size() > 1 else []
        self.parts = model.parts
        """modules that several heads share, by name"""
        self.epoch, self.epoch_share = epoch, epoch_share

    def __getitem__(self, field: str) -> Tensor:
        """A batch field as the data loader made it, of the whole batch (a text field must be ``padded``)."""
        if field not in self._gathered:
            self._gathered[field] = self.gather(self._batch[field])
        return self._gathered[field]

    @property
    def pids(self) -> Tensor:
        """(B,) identities."""
        return self["pids"]

    def precision(self) -> AbstractContextManager:
        """Context in which network layers run; losses run in float32 outside it."""
        return self._model.precision()

    def image(self, field: str = "images") -> Encoded:
        """Pooled features and routing of an image field of the whole batch, and tokens of this process's share."""
        return self._once(self._model.encode_image, self._batch[field])

    def text(self, field: str = "caption_ids") -> Encoded:
        """Pooled features and routing of a caption field of the whole batch, and tokens of this process's share."""
        return self._once(self._model.encode_text, self._batch[field], self._batch[f"{field}_lengths"])

    def text_again(self, field: str = "caption_ids") -> Encoded:
        """The same captions without gradient, dropped from anew; without dropout what :meth:`text` gave, detached."""
        if not self._model.drops_text:
            return self.text(field)
        values = self._batch[field]
        if id(values) not in self._again:
            with torch.no_grad():
                self._again[id(values)] = self.encode_text(values, self._batch[f"{field}_lengths"])
        return self._again[id(values)]

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Encoded:
        """Captions of this process's share that a head has made, encoded as those of a field are."""
        return self._whole(self._model.encode_text(ids_BL, lengths_B))

    def early_text(self, field: str = "caption_ids") -> Tensor:
        """(b, L, D) the tokens of this process's captions some blocks before the end, without gradient."""
        with torch.no_grad(), self.precision():
            return self._model.backbone.early_text(self._batch[field], self._batch[f"{field}_lengths"])

    def embeddings(self) -> list[tuple[Tensor, Tensor]]:
        """Images and captions of the whole batch in each embedding of the model: the pooled one, then the second."""
        return list(zip(self.image().embeddings, self.text().embeddings, strict=True))

    @property
    def clean(self) -> Tensor | None:
        """(B,) 1.0 for pairs that take part in the epoch, 0.0 for those that look mismatched; None without labels."""
        division = self._model.division
        return None if division is None else division.clean[self["index"]].float()

    def share(self, field: str) -> Tensor:
        """A batch field of this process's share."""
        return self._batch[field]

    @property
    def rows(self) -> slice:
        """Which rows of the whole batch are this process's share."""
        return slice(self._bounds[rank()], self._bounds[rank() + 1]) if self._bounds else slice(None)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows that belong to this process's share, with those of the others: (B, ...), with gradients."""
        sizes = [stop - start for start, stop in zip(self._bounds, self._bounds[1:], strict=False)]
        return gather_rows(rows, sizes)

    def mean(self, total: Tensor, count: int) -> Tensor:
        """Means over the whole batch; ``total`` has this process's sums, over ``count`` entries. 0 without entries."""
        if world_size() == 1:
            return total / max(count, 1)
        shares = all_sum(torch.cat([total.flatten(), total.new_tensor([count])]))
        return shares[:-1].view_as(total) / shares[-1].clamp(min=1)

    @property
    def routing(self) -> list[Tensor]:
        """The routing of everything encoded so far."""
        return [encoded.routing for encoded in self._encoded.values()]

    def _once(self, encode: Callable[..., Encoded], values: Tensor, *lengths: Tensor) -> Encoded:
        if id(values) not in self._encoded:
            self._encoded[id(values)] = self._whole(encode(values, *lengths))
        return self._encoded[id(values)]

    def _whole(self, encoded: Encoded) -> Encoded:
        """What this process has encoded, with what the others have where losses see the whole batch."""
        return encoded._replace(
            pooled=self.gather(encoded.pooled.float()),
            routing=all_sum(encoded.routing),
            selected=None if encoded.selected is None else self.gather(encoded.selected),
        )
