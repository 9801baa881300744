"""``test.py --report``: which queries fail and how, and what the scores look like.

Shape letters: Q queries (captions), G gallery images, D embedding.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.page import Card, Diagram, Section, Tile, write_page
from datasets.contact_sheet import draw_sheet
from processor.evaluator import EvalSplit, Features, pids_beside
from processor.examples import Shown, sheet_rows
from processor.metrics.ranks import rank_matches
from processor.metrics.scores import Hit, Retrieved, Scores, retrieve, sum_up_scores
from processor.metrics.table import METRICS
from utils.options import opt
from utils.tables import Table

SHOWN = 10
"""images of a query's ranking"""
CMC = 100
"""places of the CMC curve"""
LENGTHS = 6
"""groups of captions by length"""
SAMPLE_SEED = 0


@dataclass(frozen=True)
class ReportOptions:
    """Flags of the report."""

    report: bool = opt(False, "write a page with pictures of single queries, and diagrams as PNG files")
    report_dir: Path | None = opt(None, "where to; default: RUN/report_DATASET_SPLIT")
    report_queries: tuple[int, ...] = opt(
        (), "queries to show, by number from 0 on; default: a sample, the worst failures, the most confident errors"
    )
    report_count: int = opt(10, "queries in each of these three lists")

    def __post_init__(self) -> None:
        if self.report_count < 1:
            raise ValueError(f"--report_count {self.report_count}: expected at least 1")
        for name in ("report_dir", "report_queries"):
            if getattr(self, name) and not self.report:
                raise ValueError(f"--{name}: only together with --report")

    def require_queries(self, total: int, split: str) -> None:
        """Refuse queries beyond the ``total`` of a split.

        Raises:
            ValueError: names the first of them.
        """
        for query in self.report_queries:
            if not 0 <= query < total:
                raise ValueError(f"--report_queries {query}: {split} has queries 0 to {total - 1}")

    def folder(self, run_dir: Path, dataset_name: str, split: str) -> Path:
        """Where the page goes."""
        return self.report_dir or run_dir / f"report_{dataset_name}_{split}"


class Ranked(NamedTuple):
    """Everything that a report says about queries, per query."""

    rank_Q: Tensor
    """int64, rank of the nearest match; 0 for a query without any"""
    scores: Scores


def write_report(
    folder: Path,
    options: ReportOptions,
    features: Features,
    split: EvalSplit,
    shown: Shown,
    rows: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, str],
    particulars: Sequence[Section] = (),
) -> Path:
    """Write the page and its PNG files.

    Args:
        folder: where to.
        options: the flags.
        features: of the split.
        split: that was encoded.
        shown: the split as people see it.
        rows: the table, as :func:`processor.evaluate.table_rows` gives it.
        facts: name and value of what stands at the top.
        particulars: sections about what only this system has.
    """
    pids = pids_beside(features, split)
    ranked = Ranked(
        rank_matches(features.text_QD, features.image_GD, *pids).first_rank,
        sum_up_scores(features.text_QD, features.image_GD, *pids),
    )
    lists = _lists(options, ranked)
    queries = list(dict.fromkeys(query for _, _, chosen in lists for query in chosen))
    found = dict(zip(queries, retrieve(features.text_QD, features.image_GD, *pids, queries, SHOWN), strict=True))
    sections = [_table(rows), _diagrams(ranked, shown.captions, len(split.gallery_pids)), *particulars]
    matches = Counter(split.gallery_pids.tolist())
    for title, text, chosen in lists:
        cards = tuple(_card(found[query], shown, matches[int(split.query_pids[query])]) for query in chosen)
        sections.append(Section(title, text if cards else "None: every query finds the right person.", cards=cards))
    page = write_page(folder, f"Report: {facts['data set']}", facts, sections, shown.decode)
    for title, _, chosen in lists:
        if chosen:
            sheet = draw_sheet(sheet_rows([found[query] for query in chosen[:5]], shown))
            sheet.save(folder / f"{title.lower().replace(' ', '_')}.png")
    return page


def _lists(options: ReportOptions, ranked: Ranked) -> list[tuple[str, str, list[int]]]:
    """Title, explanation and queries of every list."""
    if options.report_queries:
        return [("Chosen queries", "As named by --report_queries.", list(options.report_queries))]
    count, rank_Q = options.report_count, ranked.rank_Q
    matched_Q = (rank_Q > 0).cpu().nonzero().flatten()
    order = torch.randperm(len(matched_Q), generator=torch.Generator().manual_seed(SAMPLE_SEED))
    sample = matched_Q[order[:count]].sort().values.tolist()
    worst = [query for query in rank_Q.argsort(descending=True, stable=True)[:count].tolist() if rank_Q[query] > 1]
    margin_Q = (ranked.scores.other_score_Q - ranked.scores.match_score_Q).masked_fill(rank_Q <= 1, -torch.inf)
    confident = [q for q in margin_Q.argsort(descending=True, stable=True)[:count].tolist() if rank_Q[q] > 1]
    return [
        ("Sample", "Drawn at random, the same for every run on this split.", sample),
        ("Worst failures", "The right person is ranked last of all.", worst),
        (
            "Most confident errors",
            "A wrong person comes first, by the largest margin over the right one. Look for captions that fit both, "
            "and for mistakes in the annotation.",
            confident,
        ),
    ]


def _table(rows: Mapping[str, Mapping[str, float]]) -> Section:
    cells = tuple((task, *(f"{metrics[name]:.3f}" for name in METRICS)) for task, metrics in rows.items())
    return Section(
        "Result", "In percent; t2i: captions are queries, images are the gallery.", Table(("task", *METRICS), cells)
    )


def _diagrams(ranked: Ranked, captions: Sequence[str], gallery: int) -> Section:
    from analysis.figures import draw_bars, draw_cmc, draw_histograms

    rank_M = ranked.rank_Q[ranked.rank_Q > 0]
    share_K = [100 * (rank_M <= k).double().mean().item() for k in range(1, min(CMC, gallery) + 1)]
    lengths, counts = _r1_by_length(ranked.rank_Q.tolist(), captions)
    scores = ranked.scores
    return Section(
        "Diagrams",
        "How far down the ranking the right person is; how similar captions are to images of the right and of other "
        "people; and whether longer captions do better.",
        figures=(
            Diagram("cmc", "cumulative match characteristic", draw_cmc(share_K)),
            Diagram(
                "scores",
                "histograms of the similarities of matching and other pairs",
                draw_histograms(scores.match_N.tolist(), scores.other_N.tolist()),
            ),
            Diagram(
                "caption_length", "R1 by caption length", draw_bars(lengths, counts, "words in the caption", "R1 (%)")
            ),
        ),
    )


def _r1_by_length(ranks: Sequence[int], captions: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    """R1 in percent and number of queries, by groups of words per caption that are about equally large."""
    known = sorted((len(caption.split()), rank) for caption, rank in zip(captions, ranks, strict=True) if rank)
    first = dict.fromkeys(known[len(known) * group // LENGTHS][0] for group in range(LENGTHS))
    starts = [*first, known[-1][0] + 1]
    shares, counts = {}, {}
    for start, end in zip(starts, starts[1:], strict=False):
        group = [rank for words, rank in known if start <= words < end]
        label = f"{start}" if end == start + 1 else f"{start}\u2013{end - 1}"
        shares[label], counts[label] = 100 * sum(rank == 1 for rank in group) / len(group), len(group)
    return shares, counts


def _card(found: Retrieved, shown: Shown, matches: int) -> Card:
    tiles = tuple(_tile(hit, shown, f"{hit.score:.3f}") for hit in found.hits)
    images = "1 image" if matches == 1 else f"{matches} images"
    if found.match is None:
        return Card(f"Query {found.query} \u00b7 nobody in the gallery matches", shown.captions[found.query], tiles)
    title = f"Query {found.query} \u00b7 rank {found.match.rank:,} \u00b7 {images} of this person in the gallery"
    aside = _tile(found.match, shown, f"{found.match.score:.3f}")
    return Card(title, shown.captions[found.query], tiles, aside)


def _tile(hit: Hit, shown: Shown, label: str) -> Tile:
    return Tile(shown.paths[hit.position], label, hit.right)
