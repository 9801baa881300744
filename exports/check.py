"""Does the other program compute the same? Images and captions that show every frequent mistake, encoded by both.

Shape letters: N images or captions, D embedding.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from exports.format import TargetProgram
from model.feature_encoder import FeatureEncoder

TOLERANCE = 1e-4
"""largest difference of an element of two features of length 1"""
CAPTIONS = (
    "A man in a black jacket and blue jeans, carrying a red backpack.",
    "the woman's coat is grey; she's holding an umbrella (closed) in her left hand",
    "  A  Person wearing\ta T-shirt with the number 23 ",
    "R&amp;B t-shirt, \u201cwhite\u201d shoes \u2014 it\u2019s a caf\u00e9 waiter!(",
    "a girl with long hair and a white dress, " * 12,  # longer than any text tower reads
)
"""upper case, punctuation, digits, white space, entities, typographic quotes, accents, and one that is truncated"""
_SIZES = ((384, 128), (210, 75), (97, 61), (340, 420))
"""height and width: as the model reads it, a crop of a benchmark, one to enlarge, a landscape"""


class Difference(NamedTuple):
    """The largest differences of any element of the features."""

    image: float
    text: float


def check_images() -> list[Image.Image]:
    """Noise on colour gradients, the same every time: a resize filter that differs shows at once. The last is grey."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in _SIZES:
        down, right = np.linspace(0, 200, height)[:, None, None], np.linspace(0, 200, width)[None, :, None]
        shade = np.concatenate([down + 0 * right, right + 0 * down, (down + right) / 2], axis=2)
        noise = rng.integers(0, 56, (height, width, 3))
        images.append(Image.fromarray((shade + noise).astype(np.uint8)))
    return [*images, images[-1].convert("L")]


def difference(encoder: FeatureEncoder, target: TargetProgram) -> Difference:
    """How far a target program's features are from ours; infinite where they are not finite or have another shape."""
    images, captions = check_images(), list(CAPTIONS)
    return Difference(
        _largest(encoder.encode_image(images, progress=False), target.encode_image(images)),
        _largest(encoder.encode_text(captions, progress=False), target.encode_text(captions)),
    )


def _largest(ours_ND: Tensor, theirs_ND: Tensor) -> float:
    if ours_ND.shape != theirs_ND.shape or not theirs_ND.isfinite().all():
        return float("inf")
    return float((ours_ND - theirs_ND).abs().max())
