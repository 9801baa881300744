"""Captions that a machine wrote: which of them describe nobody."""

import re
from typing import NamedTuple

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REFUSAL = re.compile(r"(i'?m sorry|i am sorry|sorry[,.]|as an ai\b|i cannot|i can't|i am unable|i'm unable)", re.I)


class LeftOut(NamedTuple):
    """Something of an annotation that does not get into the shards."""

    image: str
    reason: str
    """one of :data:`REASONS`"""
    detail: str = ""
    """the caption, or what was wrong with the image"""


REASONS = {
    "other split": "images of another split",
    "bad record": "records that cannot be read",
    "duplicate": "records of an image that an earlier record of the file names",
    "empty caption": "captions that are empty",
    "template caption": "captions with left-overs of a template",
    "refusal": "captions that are a refusal",
    "not Unicode": "captions that are not valid Unicode",
    "no caption": "images without a usable caption",
    "missing": "images that are missing",
    "damaged": "images that cannot be decoded",
    "in a test set": "images like one of a test set",
}
"""why something was left out, with words for a table"""


def fault_of(caption: str) -> str | None:
    """Why a caption, stripped, is of no use: a key of :data:`REASONS`; None where it is good."""
    if not caption:
        return "empty caption"
    if "description]" in caption or "<" in caption:
        return "template caption"
    if _REFUSAL.match(caption):
        return "refusal"
    return "not Unicode" if _SURROGATE.search(caption) else None


def clean(image: str, captions: list[str]) -> tuple[list[str], list[LeftOut]]:
    """The good captions of an image, without superfluous white space, and the others with the reason."""
    good, others = [], []
    for caption in captions:
        text = " ".join(caption.split())
        if fault := fault_of(text):
            others.append(LeftOut(image, fault, text))
        else:
            good.append(text)
    return good, others
