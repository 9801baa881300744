"""Captions with one word swapped: what is changed, and whether a model that reads it notices."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from analysis import swaps
from analysis.page import interval_text
from analysis.swaps import chosen_swaps, swaps_of, swaps_section
from datasets.records import ImageRecord

CAPTION = (
    "The woman with blond hair wears a black and white striped long-sleeved shirt, navy blue jeans and red sneakers. "
    "She carries a dark brown leather backpack in her left hand."
)


def test_one_thing_changes_at_a_time():
    found = swaps_of(CAPTION)
    assert {kind: changed for kind, changed in found.items() if kind.startswith("colour")}.keys() == {
        f"colour of the {name}" for name in ("top", "trousers or skirt", "shoes", "bag", "hair")
    }
    expected = {
        "colour of the hair": ("blond hair", "black hair"),
        "colour of the top": ("white striped", "purple striped"),
        "colour of the trousers or skirt": ("navy blue jeans", "yellow jeans"),
        "colour of the shoes": ("red sneakers", "blue sneakers"),
        "colour of the bag": ("dark brown leather", "white leather"),
        "upper garment": ("shirt", "dress"),
        "lower garment": ("jeans", "skirt"),
        "shoes": ("sneakers", "boots"),
        "bag": ("backpack", "handbag"),
        "pattern": ("striped", "checked"),
        "left or right": ("left hand", "right hand"),
    }
    for kind, (old, new) in expected.items():
        assert found[kind] == CAPTION.lower().replace(old, new), kind
    assert found["man or woman"].startswith("the man with") and ". he carries" in found["man or woman"]
    assert "in his left" in found["man or woman"]
    assert found.keys() == expected.keys() | {"man or woman"}


@pytest.mark.parametrize(
    "caption", ["A person.", "A mannequin in a shirtless pose", "Red and tired", "Someone wears red, carries a box"]
)
def test_what_is_left_as_it_is(caption: str):
    assert swaps_of(caption) == {}


def test_as_many_of_each_kind_evenly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(swaps, "MOST", 3)
    found = chosen_swaps(["a red bag"] * 10 + ["he turns left"])
    assert [(swap.query, swap.kind) for swap in found] == [
        (0, "colour of the bag"), (3, "colour of the bag"), (6, "colour of the bag"),
        (10, "man or woman"), (10, "left or right"),
    ]  # fmt: skip


def test_a_model_that_reads_colours_notices_swapped_colours_only(monkeypatch: pytest.MonkeyPatch):
    words = ["red", "green", "blue", "purple", "yellow", "a"]

    def features(captions: list[str], progress: bool = True) -> torch.Tensor:
        counts = torch.tensor([[float(caption.lower().split().count(word)) for word in words] for caption in captions])
        return torch.nn.functional.normalize(counts, dim=1)

    captions = [f"A man in a {colour} shirt" for colour in ("red", "green", "blue")] * 4
    records = [ImageRecord(number % 3, number, Path("x"), (caption,)) for number, caption in enumerate(captions)]
    monkeypatch.setattr(swaps, "FeatureEncoder", lambda model, form: SimpleNamespace(encode_text=features))
    run = SimpleNamespace(
        split=SimpleNamespace(captions=captions, records=records, query_pids=torch.arange(12) % 3),
        features=SimpleNamespace(text_QD=features(captions), image_GD=features(captions)),
        restored=SimpleNamespace(model=SimpleNamespace(input_format=lambda length: None)),
        options=SimpleNamespace(get=lambda group: group()),
    )
    rows = {row[0]: row for row in swaps_section(run).table.rows}
    assert rows["colour of the top"][1:3] == ("12", interval_text(100, 100, 100))
    assert float(rows["colour of the top"][3]) > 0
    assert rows["upper garment"][1:] == ("12", interval_text(0, 0, 0), "+0.0000"), "what changes nothing is not noticed"
    run.split.captions = ["Nothing"]
    assert swaps_section(run) is None
