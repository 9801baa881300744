"""Probes: which details of a caption a model reads, and which it ignores.

On drawn figures the truth is known, so captions that name a detail can be compared with captions of people who have it
and that leave it out, and people with look-alikes who differ from them in that one detail. Captions of real data are
divided by their words.

Shape letters: Q queries, P queries of a person, I images, D embedding.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from analysis.evaluated_run import EvaluatedRun
from analysis.figures import draw_pairs
from analysis.page import Card, Diagram, Section, interval_text
from analysis.word_lists import WORDS, topics_of
from datasets.contact_sheet import Tile
from datasets.mannequins.people import Person
from datasets.mannequins.truth import DETAILS, changed_detail, has_detail, names_detail, read_truth
from processor.metrics.confidence import intervals, sum_by_group
from utils.tables import Table

LEAST = 10
"""captions below which a share is not drawn"""
EXAMPLES = 6
TOLD_APART = "told apart"


class Trial(NamedTuple):
    """A caption of a person, and one look-alike of theirs."""

    query: int
    pid: int
    detail: str
    """in which alone they differ"""
    named: bool
    """whether the caption says it"""
    right: int
    """gallery position of the person's nearest image"""
    wrong: int
    """and of the look-alike's"""
    margin: float
    """cosine of the first minus that of the second: told apart where it is positive"""


def probe_sections(run: EvaluatedRun) -> list[Section]:
    """What captions name, and on drawn figures what tells look-alikes apart."""
    truth = read_truth(run.dataset, run.split.records)
    if truth is None:
        return [_words_section(run)]
    per_query = [person for record, person in zip(run.split.records, truth, strict=True) for _ in record.captions]
    trials = look_alike_trials(run, truth)
    return [_naming_section(run, per_query), *([_look_alikes_section(run, trials)] if trials else [])]


class _Case(NamedTuple):
    """One caption in one group of a table."""

    row: str
    column: int
    """0 or 1"""
    right: bool
    pid: int


def _compared(cases: Sequence[_Case], titles: tuple[str, str, str], names: tuple[str, str]) -> tuple[Table, Figure]:
    """A row per name with the shares of its two groups in percent, and their 95 % intervals by bootstrap; a diagram.

    ``titles``: of the first column, of both shares, and of the diagram's axis; ``names``: of the two groups.
    """
    columns = {key: number for number, key in enumerate(dict.fromkeys((case.row, case.column) for case in cases))}
    sums = sum_by_group(
        [case.right for case in cases],
        [case.pid for case in cases],
        [columns[case.row, case.column] for case in cases],
    )
    share_K, count_K = 100 * sums.value_IK.sum(0) / sums.count_IK.sum(0), sums.count_IK.sum(0).int().tolist()
    low_K, high_K = intervals(sums)
    rows, shares = [], {}
    for name in dict.fromkeys(case.row for case in cases):
        cells, pair = [name], []
        for number in range(2):
            column = columns.get((name, number))
            count = 0 if column is None else count_K[column]
            pair.append(share_K[column].item() if count >= LEAST else None)
            text = interval_text(share_K[column], low_K[column], high_K[column]) if count else ""
            cells += [f"{count:,}", text]
        rows.append(tuple(cells))
        if any(share is not None for share in pair):
            shares[name] = tuple(pair)
    first, share, axis = titles
    heads = (first, *(head for name in names for head in (f"captions, {name}", f"{share}, {name}")))
    return Table(heads, tuple(rows)), draw_pairs(shares, names, axis, 50 if share == TOLD_APART else None)


def _cases(run: EvaluatedRun, row: str, belongs_Q: Sequence[bool | None]) -> list[_Case]:
    """The queries that belong and those that do not, right where the first image matches; None: in neither group."""
    ranks, pids = run.queries["t2i"].first_rank.tolist(), run.split.query_pids.tolist()
    found = zip(belongs_Q, ranks, pids, strict=True)
    return [
        _Case(row, int(not belongs), rank == 1, pid) for belongs, rank, pid in found if rank and belongs is not None
    ]


def _naming_section(run: EvaluatedRun, people: Sequence[Person]) -> Section:
    """R1 of captions of people who have a detail, by whether the caption names it."""
    cases = []
    for detail, name in DETAILS.items():
        named_Q = [
            names_detail(caption, person, detail) if has_detail(person, detail) else None
            for caption, person in zip(run.split.captions, people, strict=True)
        ]
        cases += _cases(run, name, named_Q)
    table, figure = _compared(cases, ("detail", "R1", "R1 (%)"), ("named", "left out"))
    return Section(
        "What captions name",
        "R1 in percent of the captions of people who have a detail, by whether the caption names it, with the 95 % "
        "interval by bootstrap over identities. A caption often leaves out what its photo hides, and such a photo is "
        "harder for other reasons, too; the look-alikes below are free of that.",
        table,
        (Diagram("named_details", "R1 of captions that name a detail or leave it out", figure),),
    )


def _words_section(run: EvaluatedRun) -> Section:
    """R1 by the words of the captions."""
    found = [topics_of(caption) for caption in run.split.captions]
    cases = [case for topic in WORDS for case in _cases(run, topic, [topic in topics for topics in found])]
    table, figure = _compared(cases, ("words about", "R1", "R1 (%)"), ("with", "without"))
    return Section(
        "What captions name",
        "R1 in percent of captions with and without words about a topic, with the 95 % interval by bootstrap over "
        "identities. The words are in analysis/word_lists.py. Longer captions hold more of them, so compare topics "
        "rather than columns.",
        table,
        (Diagram("named_topics", "R1 of captions with and without words about a topic", figure),),
    )


@torch.no_grad()
def look_alike_trials(run: EvaluatedRun, truth: Sequence[Person]) -> list[Trial]:
    """Every caption of a person against every look-alike of theirs in the gallery; ``truth`` is that of the images."""
    split, features = run.split, run.features
    person = dict(zip(split.gallery_pids.tolist(), truth, strict=True))
    images, queries = defaultdict(list), defaultdict(list)
    for position, pid in enumerate(split.gallery_pids.tolist()):
        images[pid].append(position)
    for query, pid in enumerate(split.query_pids.tolist()):
        queries[pid].append(query)
    text_QD, image_ID = F.normalize(features.text_QD.float(), dim=1), F.normalize(features.image_GD.float(), dim=1)
    trials = []
    for one, other, detail in _look_alikes(person):
        for pid, twin in ((one, other), (other, one)):
            nearest = [_nearest(text_QD[queries[pid]], image_ID, images[each]) for each in (pid, twin)]
            for query, right, wrong in zip(queries[pid], *nearest, strict=True):
                named = names_detail(split.captions[query], person[pid], detail)
                trials.append(Trial(query, pid, detail, named, right[1], wrong[1], right[0] - wrong[0]))
    return trials


def _look_alikes(person: Mapping[int, Person]) -> list[tuple[int, int, str]]:
    """Pairs of identities that differ in one detail, and the detail; found by everything that a detail leaves equal."""
    alike: dict[tuple, list[int]] = defaultdict(list)
    for pid, each in person.items():
        values = tuple(vars(each).items())
        # a detail changes at most three attributes, which are next to each other or two of the top
        for group in (
            ("bag", "bag_colour", "bag_side"),
            ("headwear", "headwear_colour"),
            ("top_colour", "top_pattern", "top_second"),
            *((name,) for name, _ in values),
        ):
            alike[group, tuple(value for name, value in values if name not in group)].append(pid)
    pairs = {pair for pids in alike.values() for pair in combinations(pids, 2)}
    found = ((one, other, changed_detail(person[one], person[other])) for one, other in sorted(pairs))
    return [(one, other, detail) for one, other, detail in found if detail is not None]


def _nearest(text_PD: Tensor, image_ID: Tensor, positions: Sequence[int]) -> list[tuple[float, int]]:
    """Cosine and gallery position of the nearest of some images, for each caption."""
    score_P, place_P = (text_PD @ image_ID[positions].T).max(dim=1)
    return [(score, positions[place]) for score, place in zip(score_P.tolist(), place_P.tolist(), strict=True)]


def _look_alikes_section(run: EvaluatedRun, trials: Sequence[Trial]) -> Section:
    order = list(DETAILS)
    cases = [
        _Case(DETAILS[trial.detail], int(not trial.named), trial.margin > 0, trial.pid)
        for trial in sorted(trials, key=lambda trial: order.index(trial.detail))
    ]
    table, figure = _compared(cases, ("what differs", TOLD_APART, "told apart (%)"), ("named", "left out"))
    confused = sorted((trial for trial in trials if trial.named and trial.margin <= 0), key=lambda trial: trial.margin)
    people = len({trial.pid for trial in trials})
    return Section(
        "Look-alikes",
        f"{people:,} people of this split have a look-alike who differs in one detail. Told apart is the share of "
        "captions, in percent, that are more similar to an image of the right person than to any of the look-alike; "
        "chance is 50. Where the caption names the detail, the model can know; where it leaves it out, it can only "
        "guess, or use what only this image shows. A detail that stays near 50 although it is named is one that the "
        "model does not read. Below: captions that name the detail, and for which the look-alike wins by most.",
        table,
        (Diagram("look_alikes", "look-alikes told apart, by the detail in which they differ", figure),),
        tuple(_card(run, trial) for trial in confused[:EXAMPLES]),
    )


def _card(run: EvaluatedRun, trial: Trial) -> Card:
    paths = run.split.paths
    tiles = (
        Tile(paths[trial.wrong], f"look-alike, +{-trial.margin:.3f}", False),
        Tile(paths[trial.right], "right", True),
    )
    return Card(
        f"Look-alike of query {trial.query} · differs in {DETAILS[trial.detail]}",
        run.split.captions[trial.query],
        tiles,
    )
