"""One batch as the loss heads see it: every field is encoded at most once per step, and by whoever asks first."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn

from model.clip import Encoded


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
        self.parts = parts
        """modules that several heads share, by name"""
        self.precision = precision
        """context in which network layers run (losses run in float32 outside it)"""
        self.epoch = epoch
        """1 in the first epoch"""

    def __getitem__(self, field: str) -> Tensor:
        """A batch field as the data loader made it."""
        return self._batch[field]

    @property
    def pids(self) -> Tensor:
        """(B,) identities."""
        return self._batch["pids"]

    def image(self, field: str = "images") -> Encoded:
        """Tokens and pooled feature of an image field."""
        return self._once("image", self._encode_image, self._batch[field])

    def text(self, field: str = "caption_ids") -> Encoded:
        """Tokens and pooled feature of a caption field."""
        return self._once("text", self._encode_text, self._batch[field])

    def _once(self, kind: str, encode: Callable[[Tensor], Encoded], values: Tensor) -> Encoded:
        key = (kind, id(values))
        if key not in self._encoded:
            with self.precision():
                encoded = encode(values)
            self._encoded[key] = encoded._replace(pooled=encoded.pooled.float())
        return self._encoded[key]
