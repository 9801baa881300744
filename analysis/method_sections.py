"""What a report says about the parts that only some systems have: prompts, experts, associations.

Shape letters: D embedding, E experts, N pairs of the training split, S sampled pairs, K neighbours, P prompts, V words.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.page import Card, Diagram, Section, Tile
from model.adapters.prompts import CoupledPrompts
from model.build import GetOptions
from model.checkpoints.restore import Restored
from model.losses.memory_soft import NEIGHBOURS, MemorySoftOptions, find_neighbours
from utils.tables import Table

SAMPLE = 2000
"""training pairs whose associations are counted"""
EXAMPLES = 6
WORDS = 3
"""nearest words that are named for a prompt"""
IMAGE_BANK = "heads.memory_soft.image_bank"


class Record(Protocol):
    """An image of the training split; each of its captions makes a pair."""

    pid: int
    path: Path
    captions: Sequence[str]


def particulars(
    restored: Restored, get: GetOptions, train: Sequence[Record], word: Callable[[int], str]
) -> list[Section]:
    """The sections for what this checkpoint has.

    Args:
        restored: a model that has encoded a split, with its checkpoint.
        get: gives the instance of an options dataclass.
        train: the training split; its identities are read for this only.
        word: the text of a token.
    """
    sections = []
    if use := restored.model.expert_use():
        sections.append(experts_section(use))
    if (prompts := restored.model.clip.prompts) is not None:
        sections.append(prompts_section(prompts, restored.state["clip.text.token_embedding.weight"], word))
    if IMAGE_BANK in restored.state:
        threshold = get(MemorySoftOptions).id_threshod
        sections.append(associations_section(restored.state[IMAGE_BANK].float(), threshold, train))
    return sections


def experts_section(use: dict[str, Tensor]) -> Section:
    """Who chose which expert; ``use``: tokens (blocks, E) by modality."""
    from analysis.figures import draw_stacked

    experts = next(iter(use.values())).shape[1]
    counts = {
        f"block {block}, {name}": counts_NE[block].tolist()
        for block in range(len(next(iter(use.values()))))
        for name, counts_NE in use.items()
    }
    names = [f"expert {number}" for number in range(experts)]
    rows = tuple((name, *(f"{count:,}" for count in values)) for name, values in counts.items())
    return Section(
        "Experts",
        "Tokens that chose each expert, in this test and in training. Equal shares mean that no expert is idle; shares "
        "that differ between captions and images mean that experts keep to one side.",
        Table(("tokens of", *names), rows),
        (Diagram("experts", "share of the tokens of each expert", draw_stacked(counts, names)),),
    )


@torch.no_grad()
def prompts_section(prompts: CoupledPrompts, embedding_VD: Tensor, word: Callable[[int], str]) -> Section:
    """How long the prompts are, and which words' input vectors point the same way."""
    unit_VD = F.normalize(embedding_VD.float(), dim=1)
    rows = []
    for block, (text_PD, image_PD) in enumerate(zip(prompts.text(), prompts.image(), strict=True)):
        near = (F.normalize(text_PD.float(), dim=1) @ unit_VD.T).topk(WORDS, dim=1)
        for number in range(len(text_PD)):
            cosines, ids = near.values[number].tolist(), near.indices[number].tolist()
            words = ", ".join(f"{word(id_)} {cosine:.2f}" for cosine, id_ in zip(cosines, ids, strict=True))
            norms = (f"{each[number].norm().item():.3f}" for each in (text_PD, image_PD))
            rows.append((f"{block}", f"{number}", words, *norms))
    usual = embedding_VD.float().norm(dim=1).median().item()
    return Section(
        "Prompts",
        "The learned vectors of each block. The nearest words are those whose input vectors have the largest cosine "
        f"(shown); beyond block 0 that is a hint at best. The median length of a word's vector is {usual:.3f}.",
        Table(("block", "prompt", "nearest words", "length in text", "length in images"), tuple(rows), text_columns=3),
    )


def associations_section(bank_ND: Tensor, threshold: float, train: Sequence[Record]) -> Section:
    """Which training pairs the image memory takes for the same person, and how often it is right."""
    title = "Associations"
    pairs = [(record, caption) for record in train for caption in record.captions]
    if len(bank_ND) != len(pairs):
        text = f"The memory holds {len(bank_ND):,} pairs, this data set {len(pairs):,}: it belongs to another one."
        return Section(title, text)
    order_N = torch.randperm(len(bank_ND), generator=torch.Generator().manual_seed(0))
    pair_S = order_N[:SAMPLE].sort().values
    near = find_neighbours(bank_ND[pair_S], bank_ND, threshold)
    pids_N = torch.tensor([record.pid for record, _ in pairs])
    right_SK = (pids_N[near.row_BK] == pids_N[pair_S][:, None]) & near.is_near_BK
    found_S = near.is_near_BK.sum(dim=1)
    rows = []
    for number in range(NEIGHBOURS + 1):
        has_S = found_S == number
        total, right = number * int(has_S.sum()), int(right_SK[has_S].sum())
        rows.append((f"{number}", f"{int(has_S.sum()):,}", f"{100 * right / total:.1f} %" if total else ""))
    text = (
        f"Neighbours above --id_threshod {threshold:g} that the image memory gives {len(pair_S):,} of the "
        f"{len(bank_ND):,} training pairs, without looking at labels; these only say how many are the same person. "
        "Examples: beside the caption the image of a pair, below it the neighbours with their cosine."
    )
    examples = found_S.nonzero().flatten()[:EXAMPLES].tolist()
    cards = [
        _association(pairs, int(pair_S[row]), near.row_BK[row], near.cosine_BK[row, : found_S[row]]) for row in examples
    ]
    absent = [tile.path for card in cards for tile in (*card.tiles, card.aside) if not tile.path.is_file()]
    if absent:  # testing needs no training images
        cards, text = [], f"{text} They are left out: {absent[0]} is not there."
    return Section(title, text, Table(("neighbours", "pairs", "same person"), tuple(rows)), cards=tuple(cards))


def _association(pairs: Sequence[tuple[Record, str]], pair: int, row_K: Tensor, cosine_K: Tensor) -> Card:
    """``cosine_K``: only of the neighbours that count, which come first."""
    record, caption = pairs[pair]
    tiles = tuple(
        Tile(pairs[row][0].path, f"{cosine:.3f}", pairs[row][0].pid == record.pid)
        for row, cosine in zip(row_K.tolist(), cosine_K.tolist(), strict=False)
    )
    return Card(f"Training pair {pair}", caption, tiles, Tile(record.path, "the pair"))
