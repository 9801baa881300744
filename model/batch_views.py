"""One batch as the loss heads see it: every field is encoded at most once per step, and by whoever asks first.

A batch may be spread over several processes. Heads see it whole and need not know. Tokens stay where they were made:
a head that works on them does so for this process's share, and takes the mean over all shares.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from model.backbones.spec import Encoded
from utils.distributed import all_sum, gather_rows, rank, world_size


class Views:
    """Lazy encodings of one batch.

    Two field names that hold the same tensor (published IRRA masks captions in place, so its clean and masked captions
    are one) share one encoding.
    """

    def __init__(
        self,
        batch: Mapping[str, Tensor],
        encode_image: Callable[[Tensor], Encoded],
        encode_text: Callable[[Tensor], Encoded],
        parts: Mapping[str, nn.Module],
        precision: Callable[[], AbstractContextManager],
        epoch: int,
    ) -> None:
        self._batch = batch
        self._encode_image = encode_image
        self._encode_text = encode_text
        self._encoded: dict[tuple[str, int], Encoded] = {}
        self._gathered: dict[str, Tensor] = {}
        self._bounds = self._batch["share_bounds"].tolist() if world_size() > 1 else []
        self.parts = parts
        """modules that several heads share, by name"""
        self.precision = precision
        """context in which network layers run (losses run in float32 outside it)"""
        self.epoch = epoch
        """1 in the first epoch"""

    def __getitem__(self, field: str) -> Tensor:
        """A batch field as the data loader made it, of the whole batch (a text field must be ``padded``)."""
        if field not in self._gathered:
            self._gathered[field] = self.gather(self._batch[field])
        return self._gathered[field]

    @property
    def pids(self) -> Tensor:
        """(B,) identities."""
        return self["pids"]

    def image(self, field: str = "images") -> Encoded:
        """Pooled features and routing of an image field of the whole batch, and tokens of this process's share."""
        return self._once("image", self._encode_image, self._batch[field])

    def text(self, field: str = "caption_ids") -> Encoded:
        """Pooled features and routing of a caption field of the whole batch, and tokens of this process's share."""
        return self._once("text", self._encode_text, self._batch[field])

    def share(self, field: str) -> Tensor:
        """A batch field of this process's share."""
        return self._batch[field]

    @property
    def own(self) -> slice:
        """Which rows of the whole batch are this process's share."""
        return slice(self._bounds[rank()], self._bounds[rank() + 1]) if self._bounds else slice(None)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows that belong to this process's share, with those of the others: (B, ...), with gradients."""
        sizes = [stop - start for start, stop in zip(self._bounds, self._bounds[1:], strict=False)]
        return gather_rows(rows, sizes)

    def mean(self, mean: Tensor, count: int) -> Tensor:
        """The mean over the whole batch of what has a mean over ``count`` entries in this process's share."""
        if world_size() == 1:
            return mean
        count_here = mean.new_full((), count)
        sum_here = torch.where(count_here > 0, mean * count_here, 0)  # the mean of nothing is not a number
        total, count_all = all_sum(torch.stack([sum_here, count_here]))
        return total / count_all

    @property
    def routing(self) -> list[Tensor]:
        """The routing of everything encoded so far."""
        return [encoded.routing for encoded in self._encoded.values()]

    def _once(self, kind: str, encode: Callable[[Tensor], Encoded], values: Tensor) -> Encoded:
        key = (kind, id(values))
        if key not in self._encoded:
            with self.precision():
                encoded = encode(values)
            pooled, routing = self.gather(encoded.pooled.float()), all_sum(encoded.routing)
            self._encoded[key] = Encoded(encoded.tokens, pooled, routing)
        return self._encoded[key]
