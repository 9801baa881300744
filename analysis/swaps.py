"""Does a model notice a wrong word? Captions in which one word is swapped, against the image that they describe.

Needs no truth beyond the caption: "a red bag" on a photo with a red bag should fit better than "a blue bag".

Shape letters: N swapped captions, D embedding.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from analysis.evaluated_run import EvaluatedRun
from analysis.figures import draw_intervals
from analysis.page import Diagram, Section, interval_text
from analysis.word_lists import WORDS
from model.backbones.spec import BackboneOptions
from model.feature_encoder import FeatureEncoder
from processor.evaluator import EQUAL
from processor.metrics.confidence import intervals, sum_by_group
from utils.tables import Table

MOST = 150
"""captions of each kind that are tried, evenly from all that have it"""

COLOURS = {
    "black": "red", "white": "purple", "grey": "green", "gray": "green", "blue": "yellow", "navy": "orange",
    "red": "blue", "maroon": "green", "green": "pink", "olive": "pink", "yellow": "purple", "orange": "blue",
    "pink": "green", "purple": "yellow", "brown": "white", "beige": "blue", "blonde": "black", "blond": "black",
}  # fmt: skip
"""colours that cannot be mistaken for the ones they replace"""
SHADES = "light|dark|bright|pale|navy|royal|sky|army|deep"
"""words before a colour that go with it"""
COLOURED = {
    "upper garment": "top",
    "lower garment": "trousers or skirt",
    "shoes": "shoes",
    "bag": "bag",
    "hair": "hair",
}
"""topics of WORDS whose colour is swapped, and how a table calls them"""
SINGLE = {
    "upper garment": {
        "shirt": "dress", "t-shirt": "coat", "blouse": "coat", "sweater": "dress", "hoodie": "dress", "jacket": "dress",
        "coat": "t-shirt", "dress": "jacket", "polo": "coat",
    },
    "lower garment": {
        "trousers": "skirt", "pants": "skirt", "jeans": "skirt", "slacks": "skirt", "leggings": "shorts",
        "shorts": "trousers", "skirt": "trousers",
    },
    "shoes": {
        "sneakers": "boots", "trainers": "boots", "boots": "sandals", "sandals": "boots", "heels": "sneakers",
        "slippers": "boots",
    },
    "bag": {"backpack": "handbag", "rucksack": "handbag", "handbag": "backpack", "purse": "backpack",
            "suitcase": "backpack"},
    "pattern": {"striped": "checked", "plaid": "striped", "checked": "striped", "checkered": "striped",
                "dotted": "striped", "floral": "striped"},
    "man or woman": {"man": "woman", "woman": "man", "male": "female", "female": "male", "lady": "gentleman",
                     "boy": "girl", "girl": "boy", "he": "she", "she": "he", "his": "her", "her": "his"},
    "left or right": {"left": "right", "right": "left"},
}  # fmt: skip
"""by what is swapped: words and what takes their place, wherever they stand in a caption"""


class Swap(NamedTuple):
    """A caption with one thing in it changed."""

    query: int
    kind: str
    caption: str


def swaps_of(caption: str) -> dict[str, str]:
    """The caption with one thing changed, by what that is; in small letters."""
    caption, found = caption.lower(), {}
    for topic, name in COLOURED.items():
        nouns = "|".join(re.escape(word) for word in WORDS[topic].split())
        between = rf"(?:[ -](?!(?:and|with|or|an?|{'|'.join(COLOURS)})\b)[\w-]+){{0,2}}?"
        pattern = rf"\b(?:(?:{SHADES}) )?({'|'.join(COLOURS)})(?={between} (?:{nouns})\b)"
        changed = re.sub(pattern, lambda match: COLOURS[match[1]], caption, count=1)
        if changed != caption:
            found[f"colour of the {name}"] = changed
    for kind, words in SINGLE.items():
        changed = re.sub(rf"(?<![\w-])({'|'.join(words)})(?![\w-])", lambda match: words[match[1]], caption)  # noqa: B023
        if changed != caption:
            found[kind] = changed
    return found


def chosen_swaps(captions: Sequence[str]) -> list[Swap]:
    """At most :data:`MOST` swaps of each kind."""
    by_kind: dict[str, list[Swap]] = {}
    for query, caption in enumerate(captions):
        for kind, changed in swaps_of(caption).items():
            by_kind.setdefault(kind, []).append(Swap(query, kind, changed))
    order = [*(f"colour of the {name}" for name in COLOURED.values()), *SINGLE]
    return [
        each[len(each) * number // count]
        for kind in order
        if (each := by_kind.get(kind, []))
        for count in [min(MOST, len(each))]
        for number in range(count)
    ]


def swaps_section(run: EvaluatedRun) -> Section | None:
    """How often a swapped word makes a caption fit its image worse; None where no caption has such a word."""
    swaps = chosen_swaps(run.split.captions)
    if not swaps:
        return None
    margin_N = swap_margins(run, swaps)
    pids = [int(run.split.query_pids[swap.query]) for swap in swaps]
    shares = _noticed([swap.kind for swap in swaps], (margin_N > EQUAL).tolist(), pids)
    rows = []
    for kind, (count, share, low, high) in shares.items():
        margin = margin_N[torch.tensor([swap.kind == kind for swap in swaps])].mean().item()
        rows.append((kind, f"{count:,}", interval_text(share, low, high), f"{margin:+.4f}"))
    figure = draw_intervals({kind: each[1:] for kind, each in shares.items()}, "noticed (%)", chance=50)
    return Section(
        "Swapped words",
        "One word of a caption is swapped for a wrong one (red bag, blue bag; jacket, dress; man, woman). Noticed is "
        "the share of captions, in percent, that fit the image they describe better as they are, with the 95 % "
        "interval by bootstrap over identities; a model that does not read the word is right in half of the cases. The "
        "last column is by how much the cosine similarity falls on average. Which words are swapped for which stands "
        "in analysis/swaps.py.",
        Table(("swapped", "captions", "noticed", "fall of the cosine"), tuple(rows)),
        (Diagram("swapped_words", "how often a swapped word is noticed", figure),),
    )


def swap_margins(run: EvaluatedRun, swaps: Sequence[Swap]) -> torch.Tensor:
    """(N,) cosine of each caption as it is with the image that it describes, minus that of the swapped one."""
    model = run.restored.model
    encoder = FeatureEncoder(model, model.input_format(run.options.get(BackboneOptions).text_length))
    image_of = [position for position, record in enumerate(run.split.records) for _ in record.captions]
    queries = [swap.query for swap in swaps]
    image_ND = F.normalize(run.features.image_GD[[image_of[query] for query in queries]].float().cpu(), dim=1)
    as_it_is_ND = F.normalize(run.features.text_QD[queries].float().cpu(), dim=1)
    swapped_ND = encoder.encode_text([swap.caption for swap in swaps], progress=None)
    return ((as_it_is_ND - swapped_ND) * image_ND).sum(dim=1)


def _noticed(
    kinds: Sequence[str], right: Sequence[bool], pids: Sequence[int]
) -> Mapping[str, tuple[int, float, float, float]]:
    """Number of captions, share noticed in percent and its bounds, by kind."""
    columns = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    sums = sum_by_group(right, pids, [columns[kind] for kind in kinds])
    count_K, (low_K, high_K) = sums.count_IK.sum(0), intervals(sums)
    parts = (count_K.int(), 100 * sums.value_IK.sum(0) / count_K, low_K, high_K)
    return dict(zip(columns, zip(*(part.tolist() for part in parts), strict=True), strict=True))
