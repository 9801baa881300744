"""What a report shows of the parts that only some methods have: prompts, experts, associations.

For another method, write a function from an evaluated run to a section, or to None for a run without that part, and
add it to :data:`SECTIONS`.

Shape letters: D embedding, E experts, N pairs of the training split, S sampled pairs, K neighbours, P prompts, V words.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.evaluated_run import EvaluatedRun
from analysis.experts import by_block, expert_table
from analysis.figures import draw_stacked
from analysis.page import Card, Diagram, Section
from datasets.contact_sheet import Tile
from datasets.records import ImageRecord
from model.losses.memory_soft import NEIGHBOURS, MemorySoftOptions, Neighbours, find_neighbours
from utils.tables import Table

SAMPLE = 2000
"""training pairs whose associations are counted"""
EXAMPLES = 6
WORDS = 3
"""nearest words that are named for a prompt"""
IMAGE_BANK = "heads.memory_soft.image_bank"


def experts_section(run: EvaluatedRun) -> Section | None:
    """PHP: how the tokens are divided among the experts."""
    use = run.restored.model.expert_use()
    if not use:
        return None
    table = expert_table(use)
    counts = {f"block {block}, {name}": counts_E.tolist() for block, name, counts_E in by_block(use)}
    return Section(
        "Experts",
        "How many tokens chose each expert, in this test and during training, and the entropy of the shares in nats. "
        "Equal shares mean that no expert is idle. If the shares differ between captions and images, the experts "
        "specialise in one of the two.",
        table,
        (Diagram("experts", "share of the tokens of each expert", draw_stacked(counts, table.columns[2:-1])),),
    )


@torch.no_grad()
def prompts_section(run: EvaluatedRun) -> Section | None:
    """ECCL: how long the prompts are, and which words' embeddings point the same way."""
    prompts, word = run.restored.model.backbone.prompts, run.restored.model.backbone.tokenizer.decode
    if prompts is None:
        return None
    embedding_VD = run.restored.state["clip.text.token_embedding.weight"].float()
    unit_VD = F.normalize(embedding_VD, dim=1)
    rows = []
    for block, (text_PD, image_PD) in enumerate(zip(prompts.text(), prompts.image(), strict=True)):
        near = (F.normalize(text_PD.float(), dim=1) @ unit_VD.T).topk(WORDS, dim=1)
        for number, (cosines, ids) in enumerate(zip(near.values.tolist(), near.indices.tolist(), strict=True)):
            words = ", ".join(f"{word([id_])}\u00a0{cosine:.2f}" for cosine, id_ in zip(cosines, ids, strict=True))
            norms = (f"{each[number].norm().item():.3f}" for each in (text_PD, image_PD))
            rows.append((f"{block}", f"{number}", words, *norms))
    return Section(
        "Prompts",
        "The learned prompt vectors of each block. The nearest words are those whose embeddings have the largest "
        "cosine similarity, given beside each; beyond block 0 they are a hint at best. For comparison, the median norm "
        f"of a word's embedding is {embedding_VD.norm(dim=1).median().item():.3f}.",
        Table(("block", "prompt", "nearest words", "text norm", "image norm"), tuple(rows), text_columns=3),
    )


def associations_section(run: EvaluatedRun) -> Section | None:
    """DGCMIA: which training pairs the image memory takes for the same person, and how often it is right."""
    if IMAGE_BANK not in run.restored.state:
        return None
    bank_ND = run.restored.state[IMAGE_BANK].float()
    pairs = [(record, caption) for record in run.dataset.train for caption in record.captions]
    if len(bank_ND) != len(pairs):
        counts = f"{len(bank_ND):,} pairs of another data set; this one has {len(pairs):,}"
        return Section("Associations", f"None to show: the memory holds {counts}.")
    pair_S = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:SAMPLE].sort().values
    threshold = run.options.get(MemorySoftOptions).id_threshod
    near = find_neighbours(bank_ND[pair_S], bank_ND, threshold)
    text = (
        f"How many neighbours above --id_threshod {threshold:g} the image memory finds for {len(pair_S):,} of the "
        f"{len(pairs):,} training pairs. The memory never sees identities; they are used here only to tell how many "
        "neighbours show the same person. Each example has the image of a pair beside its caption, and below it the "
        "neighbours with their cosine similarity."
    )
    cards = _associations(pairs, pair_S, near)
    absent = [tile.path for card in cards for tile in (*card.tiles, card.aside) if not tile.path.is_file()]
    if absent:  # testing needs no training images
        cards, text = (), f"{text} No examples, because {absent[0]} is missing."
    return Section("Associations", text, _neighbour_table(pairs, pair_S, near), cards=cards)


def _neighbour_table(pairs: Sequence[tuple[ImageRecord, str]], pair_S: Tensor, near: Neighbours) -> Table:
    """How many sampled pairs have 0, 1, ... neighbours, and how many of those are right."""
    pid_N = torch.tensor([record.pid for record, _ in pairs])
    right_SK = (pid_N[near.row_BK] == pid_N[pair_S][:, None]) & near.is_near_BK
    found_S = near.is_near_BK.sum(dim=1)
    rows = []
    for number in range(NEIGHBOURS + 1):
        has_S = found_S == number
        total, right = number * int(has_S.sum()), int(right_SK[has_S].sum())
        rows.append((f"{number}", f"{int(has_S.sum()):,}", f"{100 * right / total:.1f} %" if total else ""))
    return Table(("neighbours", "pairs", "same person"), tuple(rows))


def _associations(pairs: Sequence[tuple[ImageRecord, str]], pair_S: Tensor, near: Neighbours) -> tuple[Card, ...]:
    """The first sampled pairs that have neighbours."""
    cards = []
    for row in near.is_near_BK.any(dim=1).nonzero().flatten()[:EXAMPLES].tolist():
        record, caption = pairs[pair_S[row]]
        is_near_K = near.is_near_BK[row]
        tiles = []
        for other, cosine in zip(near.row_BK[row][is_near_K], near.cosine_BK[row][is_near_K], strict=True):
            neighbour, _ = pairs[other]
            tiles.append(Tile(neighbour.path, f"{cosine:.3f}", neighbour.pid == record.pid))
        cards.append(Card(f"Training pair {pair_S[row]}", caption, tuple(tiles), Tile(record.path, "the pair")))
    return tuple(cards)


SECTIONS = (experts_section, prompts_section, associations_section)
"""in the order of the page"""
