"""Details of drawn people: in which alone two differ, and which of them a caption names."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from datasets import mannequins, rstpreid
from datasets.mannequins.dice import WHO, Dice
from datasets.mannequins.people import LEVELS, Person, _twin, stranger
from datasets.mannequins.truth import DETAILS, changed_detail, has_detail, names_detail, read_truth
from tests.helpers.runs import DRAWING

PERSON = Person(
    sex="woman", skin="light", hair="ponytail", hair_colour="blonde", headwear="cap", headwear_colour="red",
    glasses="none", top="shirt", sleeves="short", top_colour="black", top_pattern="striped", top_second="white",
    jacket="none", jacket_colour="none", lower="jeans", lower_colour="navy", lower_pattern="plain", shoes="boots",
    shoes_colour="brown", bag="shoulder bag", bag_colour="blue", bag_side="left",
)  # fmt: skip
CAPTION = (
    "A woman with a blond ponytail wears a black and white striped short-sleeved shirt, dark blue denim pants and a "
    "bright red baseball cap. On her feet are boots. She is holding a bag at her left side."
)


def test_what_a_caption_names():
    named = {detail for detail in DETAILS if names_detail(CAPTION, PERSON, detail)}
    assert named == {
        "top_colour", "lower_colour", "headwear_colour", "hair_colour", "top_pattern", "sleeves", "headwear", "bag",
        "bag_side",
    }  # fmt: skip
    assert not has_detail(PERSON, "glasses") and not has_detail(PERSON, "jacket_colour")


@pytest.mark.parametrize(
    ("caption", "detail"),
    [
        ("A black hat and a pair of boots.", "top_colour"),  # black belongs to something else
        ("A white shirt.", "top_colour"),
        ("A brown cardigan and boots.", "shoes_colour"),
        ("She carries it in her right hand.", "bag_side"),
        ("A blackish shirt.", "top_colour"),
        ("Blue jeans and her bag.", "bag_colour"),
    ],
)
def test_what_it_does_not(caption: str, detail: str):
    assert not names_detail(caption, PERSON, detail)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"top_colour": "red"}, "top_colour"),
        ({"top_colour": "white", "top_second": "black"}, "top_colour"),
        ({"top_pattern": "plain", "top_second": "none"}, "top_pattern"),
        ({"bag": "none", "bag_colour": "none", "bag_side": "none"}, "bag"),
        ({"bag": "handbag"}, "bag"),
        ({"bag_colour": "red"}, "bag_colour"),
        ({"headwear": "hat"}, "headwear"),
        ({"glasses": "sunglasses"}, "glasses"),
        ({"bag_colour": "red", "bag_side": "right"}, None),
        ({"sex": "man"}, None),
        ({"lower_colour": "blue", "shoes_colour": "black"}, None),
        ({}, None),
    ],
)
def test_the_detail_in_which_two_differ(change: dict[str, str], detail: str | None):
    other = dataclasses.replace(PERSON, **change)
    assert changed_detail(PERSON, other) == changed_detail(other, PERSON) == detail


def test_every_drawn_look_alike_differs_in_one_detail():
    level, found = LEVELS["hard"], set()
    for number in range(300):
        dice = Dice(0, 0, number, WHO, 0)
        person = stranger(dice, level)
        other = _twin(dice, level, person)
        if other != person:
            found.add(changed_detail(person, other))
    assert found == DETAILS.keys()


def test_the_truth_of_drawn_images_in_any_layout(data_root: Path, tmp_path: Path):
    dataset = mannequins.load(tmp_path, lambda group: DRAWING)
    people = read_truth(dataset, dataset.test)
    assert len({(record.pid, person) for record, person in zip(dataset.test, people, strict=True)}) == 5
    clothes = sum(
        names_detail(caption, person, "top_colour")
        for record, person in zip(dataset.test, people, strict=True)
        for caption in record.captions
    )
    assert clothes > 10
    other = rstpreid.load(data_root, lambda group: group())
    assert len(read_truth(other, other.train)) == len(other.train)
    shutil.copy(dataset.annotation, tmp_path / "reid_raw.json")  # without the file that says how it was drawn
    assert read_truth(dataclasses.replace(dataset, annotation=tmp_path / "reid_raw.json"), dataset.test) is None
    table = dataset.annotation.with_name("captions.tsv")  # written from a drawn data set
    assert read_truth(dataclasses.replace(dataset, annotation=table), dataset.test) is None
    stripped = [{"file_path": "a.jpg", "id": 1, "split": "test", "captions": ["x"]}]
    (tmp_path / "mannequins.json").write_text("{}")
    for content in (stripped, {"0": stripped[0]}):
        (tmp_path / "other.json").write_text(json.dumps(content))
        assert read_truth(dataclasses.replace(dataset, annotation=tmp_path / "other.json"), dataset.test) is None
