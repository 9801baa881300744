"""Probes with planted features: what a model reads shows, what it ignores does not."""

from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from analysis.probes import look_alike_trials, probe_sections
from analysis.word_lists import WORDS, topics_of
from datasets import mannequins
from datasets.mannequins.options import MannequinOptions
from datasets.mannequins.people import Person
from datasets.mannequins.truth import changed_detail, names_detail, read_truth
from datasets.records import Dataset
from processor.evaluator import Features
from processor.metrics.ranks import rank_matches

DRAWING = MannequinOptions(
    mannequin_train_ids=1,
    mannequin_val_ids=1,
    mannequin_test_ids=60,
    mannequin_images_per_id="2",
    mannequin_height=48,
    mannequin_difficulty="hard",
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return mannequins.load(tmp_path_factory.mktemp("data"), lambda group: DRAWING)


def run_that_reads(dataset: Dataset, *names: str) -> SimpleNamespace:
    """A run whose features are attributes of the people, and nothing else."""
    records = dataset.test
    people = read_truth(dataset, records)
    values = {name: sorted({getattr(person, name) for person in people}) for name in names}

    def feature(person: Person) -> list[float]:
        return [float(getattr(person, name) == value) for name in names for value in values[name]]

    split = SimpleNamespace(
        records=records,
        paths=tuple(record.path for record in records),
        captions=tuple(caption for record in records for caption in record.captions),
        gallery_pids=torch.tensor([record.pid for record in records]),
        query_pids=torch.tensor([record.pid for record in records for _ in record.captions]),
    )
    images = torch.tensor([feature(person) for person in people])
    texts = torch.tensor([feature(p) for p, record in zip(people, records, strict=True) for _ in record.captions])
    features = Features(texts, images, split.query_pids, split.gallery_pids)
    return SimpleNamespace(dataset=dataset, split=split, features=features, queries={"t2i": rank_matches(*features)})


def test_every_pair_of_look_alikes_is_tried(drawn: Dataset):
    run = run_that_reads(drawn, "top_colour", "bag")
    people = read_truth(drawn, drawn.test)
    person = dict(zip(run.split.gallery_pids.tolist(), people, strict=True))
    expected = []
    for pid, other in permutations(person, 2):
        if detail := changed_detail(person[pid], person[other]):
            for query, (of, caption) in enumerate(zip(run.split.query_pids, run.split.captions, strict=True)):
                if of == pid:
                    told = detail == "top_colour" or (detail == "bag" and person[pid].bag != person[other].bag)
                    expected.append((query, pid, detail, names_detail(caption, person[pid], detail), told))
    found = look_alike_trials(run, people)
    assert len(expected) > 50
    assert sorted((*trial[:4], trial.margin > 1e-6) for trial in found) == sorted(expected)
    for trial in found:
        assert run.split.gallery_pids[trial.right] == trial.pid != run.split.gallery_pids[trial.wrong]


def test_the_page_says_what_is_read(drawn: Dataset):
    naming, alike = probe_sections(run_that_reads(drawn, "lower_colour"))
    assert (naming.title, alike.title) == ("What captions name", "Look-alikes")
    assert len(naming.table.rows) == 13
    cells = {row[0]: (row[2] + row[4]) for row in alike.table.rows}
    assert cells["colour of trousers or skirt"].startswith("100.0")
    others = [text for name, text in cells.items() if name != "colour of trousers or skirt"]
    assert others and all(text.startswith("0.0") for text in others if text), "a tie is not told apart"
    assert alike.cards and "differs in" in alike.cards[0].title
    assert [tile.right for tile in alike.cards[0].tiles] == [False, True]


def test_without_the_truth_words_divide_the_captions(drawn: Dataset):
    run = run_that_reads(drawn, "lower_colour")
    run.dataset = Dataset("mine", (), (), drawn.test)
    (section,) = probe_sections(run)
    assert [row[0] for row in section.table.rows] == list(WORDS)
    for row in section.table.rows:
        counts = int(row[1].replace(",", "")) + int(row[3].replace(",", ""))
        assert counts == len(run.split.captions)


def test_topics_by_whole_words():
    assert topics_of("He is bareheaded, in a T-shirt.") == {"upper garment"}
    assert topics_of("A sleeveless, knee-length DRESS; hair tied back") == {
        "sleeves", "upper garment", "hair", "pose or direction",
    }  # fmt: skip
    assert topics_of("") == set()


def test_a_page_of_probes_has_its_diagrams(drawn: Dataset, tmp_path: Path):
    from analysis.page import write_page

    page = write_page(tmp_path / "page", "probes", {}, probe_sections(run_that_reads(drawn, "top_colour")))
    assert {path.name for path in page.parent.glob("*.png")} == {"named_details.png", "look_alikes.png"}
