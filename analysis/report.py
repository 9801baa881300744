"""``test.py --report``: which queries fail and how, and what the similarities look like.

Shape letters: Q queries (captions), G gallery images, D embedding.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.attention import attention_section
from analysis.evaluated_run import EvaluatedRun, ReportOptions
from analysis.figures import draw_bars, draw_cmc, draw_histograms
from analysis.method_sections import SECTIONS
from analysis.page import Card, Diagram, Section, plain_csv, write_page
from analysis.probes import probe_sections
from analysis.swaps import swaps_section
from datasets.batches.evaluation_split import EvaluationSplit
from datasets.contact_sheet import Tile, draw_sheet
from datasets.records import counts
from model.build import LossOptions
from processor.evaluator import sheet_rows
from processor.metrics.scores import Hit, Retrieved, Scores, retrieve, sum_up_scores
from processor.metrics.table import metric_cells, metric_names
from utils.files import write_text
from utils.tables import Table

IMAGES = 10
"""of a query's ranking"""
SHEET_QUERIES = 5
"""queries in the PNG file of a list"""
CMC_RANKS = 100
LENGTH_GROUPS = 6
"""groups of captions by length"""
SAMPLE_SEED = 0


class QueryList(NamedTuple):
    """Queries that the page shows under one heading."""

    title: str
    text: str
    queries: Sequence[int]


def write_report(run: EvaluatedRun) -> Path:
    """Write the page and its PNG files, as the flags of the run say; returns the page."""
    options, run_dir = run.options.get(ReportOptions), run.options.config_file.parent
    weights = run.restored.checkpoint
    folder = options.report_dir or run_dir / f"report_{run.dataset.name}_{run.split.name}"
    rank_Q, scores = run.queries["t2i"].first_rank, sum_up_scores(*run.features)
    lists = _query_lists(options, rank_Q, scores)
    queries = list(dict.fromkeys(query for each in lists for query in each.queries))
    found = dict(zip(queries, retrieve(*run.features, queries, IMAGES), strict=True))
    matches = Counter(run.split.gallery_pids.tolist())
    cards = {query: _card(found[query], run.split, matches[int(run.split.query_pids[query])]) for query in queries}
    facts = {
        "run": str(run_dir),
        "weights": weights.name if weights.parent == run_dir else str(weights),
        "data set": f"{run.dataset.name} {run.split.name}",
        "identities, images, captions": ", ".join(f"{number:,}" for number in counts(run.split.records)),
        "losses": run.options.get(LossOptions).loss_names,
    }
    sections = [_result_section(run.rows), _diagrams_section(rank_Q, scores, run.split)]
    probes = [*probe_sections(run), *filter(None, [swaps_section(run)])]
    sections += probes
    sections += [section for make in SECTIONS if (section := make(run)) is not None]
    for title, text, chosen in lists:
        text = text if chosen else "None: every query ranks the right person first."
        sections.append(Section(title, text, cards=tuple(cards[query] for query in chosen)))
    maps = attention_section(run, [found[query] for query in lists[0].queries], folder / "words")
    sections += [maps] if maps else []
    page = write_page(folder, f"Report: {facts['data set']}", facts, sections)
    for section in probes:
        name = section.title.lower().replace(" ", "_")
        write_text(folder / f"{name}.csv", plain_csv(section.table))
    for title, _, chosen in lists:
        if chosen:
            sheet = draw_sheet(sheet_rows([found[query] for query in chosen[:SHEET_QUERIES]], run.split))
            sheet.save(folder / f"{title.lower().replace(' ', '_')}.png")
    return page


def _query_lists(options: ReportOptions, rank_Q: Tensor, scores: Scores) -> list[QueryList]:
    """The queries of ``--report_queries``, or a sample and the failures; rank 0 is a query without any match."""
    if options.report_queries:
        return [QueryList("Chosen queries", "Those of --report_queries.", options.report_queries)]
    count = options.report_count
    matched_Q = (rank_Q > 0).nonzero().flatten()
    order = torch.randperm(len(matched_Q), generator=torch.Generator().manual_seed(SAMPLE_SEED))
    sample = matched_Q[order[:count]].sort().values.tolist()

    def failures(badness_Q: Tensor) -> list[int]:
        order = badness_Q.argsort(descending=True, stable=True)[:count].tolist()
        return [query for query in order if rank_Q[query] > 1]

    margin_Q = (scores.other_score_Q - scores.match_score_Q).cpu().masked_fill(rank_Q <= 1, -torch.inf)
    return [
        QueryList("Sample", "Drawn at random; every run on this split shows the same queries.", sample),
        QueryList("Worst failures", "The queries that rank the right person lowest.", failures(rank_Q)),
        QueryList(
            "Most confident errors",
            "A wrong person beats the right one by the largest margins. Look for captions that fit both people, and "
            "for mistakes in the annotation.",
            failures(margin_Q),
        ),
    ]


def _result_section(rows: Mapping[str, Mapping[str, float]]) -> Section:
    names = metric_names(rows.values())
    cells = tuple((task, *metric_cells(metrics, names)) for task, metrics in rows.items())
    text = f"In percent. t2i: captions are the queries, images the gallery{'; i2t: the reverse' * ('i2t' in rows)}."
    return Section("Result", text, Table(("task", *names), cells))


def _diagrams_section(rank_Q: Tensor, scores: Scores, split: EvaluationSplit) -> Section:
    rank_M = rank_Q[rank_Q > 0]
    share_K = [100 * (rank_M <= k).double().mean().item() for k in range(1, min(CMC_RANKS, len(split.records)) + 1)]
    histograms = draw_histograms(scores.match_N.tolist(), scores.other_N.tolist())
    bars = draw_bars(*_r1_by_length(rank_Q.tolist(), split.captions), "words in the caption", "R1 (%)")
    return Section(
        "Diagrams",
        "How far down the ranking the right person comes; how similar captions are to images of the right person and "
        "of others; and whether longer captions do better.",
        figures=(
            Diagram("cmc", "cumulative match characteristic", draw_cmc(share_K)),
            Diagram("scores", "histograms of the similarities of matching and other pairs", histograms),
            Diagram("caption_length", "R1 by caption length", bars),
        ),
    )


def _r1_by_length(ranks: Sequence[int], captions: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    """R1 in percent and number of queries, by groups of words per caption that are about equally large."""
    known = sorted((len(caption.split()), rank) for caption, rank in zip(captions, ranks, strict=True) if rank)
    first = dict.fromkeys(known[len(known) * group // LENGTH_GROUPS][0] for group in range(LENGTH_GROUPS))
    shares, counts = {}, {}
    for start, end in pairwise([*first, known[-1][0] + 1]):
        group = [rank for words, rank in known if start <= words < end]
        label = f"{start}" if end == start + 1 else f"{start}\u2013{end - 1}"
        shares[label], counts[label] = 100 * sum(rank == 1 for rank in group) / len(group), len(group)
    return shares, counts


def _card(found: Retrieved, split: EvaluationSplit, matches: int) -> Card:
    def tile(hit: Hit) -> Tile:
        return Tile(split.records[hit.position].path, f"{hit.score:.3f}", hit.right)

    tiles, caption = tuple(map(tile, found.hits)), split.captions[found.query]
    if found.match is None:
        return Card(f"Query {found.query} \u00b7 no match in the gallery", caption, tiles)
    images = "1 image" if matches == 1 else f"{matches} images"
    title = f"Query {found.query} \u00b7 rank {found.match.rank:,} \u00b7 {images} of this person in the gallery"
    return Card(title, caption, tiles, tile(found.match))
