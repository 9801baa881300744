"""The drawn data set: the same bytes from the same seed, the published layouts, honest splits, truthful captions."""

import dataclasses
import hashlib
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from datasets.mannequins import draw as mannequins
from datasets.mannequins.body import look_of
from datasets.mannequins.dice import Dice
from datasets.mannequins.draw import draw, ensure
from datasets.mannequins.options import LAYOUTS, MannequinOptions
from datasets.mannequins.people import LEVELS, Person, people
from datasets.mannequins.photo import photograph
from datasets.mannequins.words import COLOUR_WORDS, HAIR_WORDS, LOOSE_WORDS, Sight, caption

SMALL = MannequinOptions(20, 4, 6, "2-3", mannequin_height=64)
ALL_SEEN = frozenset({"top", "lower", "shoes", "hair", "face", "headwear", "jacket", "logo", "inner", "bag"})


def records_of(folder: Path, layout: str = "Mannequins") -> list[dict]:
    return json.loads((folder / LAYOUTS[layout].file).read_text())


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root") / "Mannequins"
    draw(folder, SMALL, workers=1)
    return folder


def test_workers_and_runs_change_no_byte(drawn, tmp_path):
    draw(tmp_path / "again", SMALL, workers=2)
    assert digest(tmp_path / "again") == digest(drawn)
    draw(tmp_path / "other", dataclasses.replace(SMALL, mannequin_seed=1), workers=1)
    assert digest(tmp_path / "other") != digest(drawn)


def test_more_identities_leave_the_others_as_they_are(drawn, tmp_path):
    draw(tmp_path / "more", dataclasses.replace(SMALL, mannequin_test_ids=9), workers=1)
    old, new = ({r["file_path"]: r for r in records_of(folder)} for folder in (drawn, tmp_path / "more"))
    assert old == {name: new[name] for name in old}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, tmp_path):
    options = dataclasses.replace(SMALL, mannequin_train_ids=3, mannequin_val_ids=2, mannequin_test_ids=2)
    folder = ensure(tmp_path, options, layout, workers=1)
    assert folder == tmp_path / layout
    expected = {"Mannequins": range(7), "CUHK-PEDES": range(1, 8), "ICFG-PEDES": range(5), "RSTPReid": range(7)}
    splits = ["train"] * 3 + ([] if layout == "ICFG-PEDES" else ["val"] * 2) + ["test"] * 2
    records = records_of(folder, layout)
    assert {r["id"]: r["split"] for r in records} == dict(zip(expected[layout], splits, strict=True))
    for record in records:
        path = folder / "imgs" / record["img_path" if layout == "RSTPReid" else "file_path"]
        assert path.is_file()
        assert len(record["captions"]) == 2
        assert all(text.strip() == text and text.isascii() for text in record["captions"])
        assert ("processed_tokens" in record) == (layout == "CUHK-PEDES")
    if layout == "CUHK-PEDES":
        assert [len(tokens) for tokens in records[0]["processed_tokens"]] == [
            len(t.split()) for t in records[0]["captions"]
        ]


def test_images_decode_and_vary(drawn):
    records = records_of(drawn)
    per_id: dict[int, int] = {}
    sizes = set()
    for record in records:
        per_id[record["id"]] = per_id.get(record["id"], 0) + 1
        with Image.open(drawn / "imgs" / record["file_path"]) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            image.load()
            sizes.add(image.size)
    assert set(per_id.values()) == {2, 3}
    assert len(sizes) > len(records) / 2
    assert all(0.3 < wide / tall < 0.5 and 40 <= tall <= 90 for wide, tall in sizes)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_no_two_identities_are_the_same(difficulty):
    everyone = list(people(5, LEVELS[difficulty], (400, 60, 100)))
    assert len({person for _, _, person in everyone}) == 560
    assert [split for split, _, _ in everyone] == ["train"] * 400 + ["val"] * 60 + ["test"] * 100


def _near(one: Person, other: Person) -> bool:
    differences = {
        name.removesuffix("_colour").removesuffix("_side").removesuffix("_second").removesuffix("_pattern")
        for name, value in dataclasses.asdict(one).items()
        if value != getattr(other, name)
    }
    return len(differences) == 1


def test_harder_means_more_look_alikes_and_vaguer_captions():
    twins, words, exact = [], [], []
    for level in LEVELS.values():
        crowd = [person for _, _, person in people(2, level, (150, 0, 0))]
        twins.append(sum(any(_near(a, b) for b in crowd) for a in crowd))
        texts = [caption(p, Sight("front", True, ALL_SEEN), level, Dice(2, n)) for n, p in enumerate(crowd)]
        words.append(sum(len(text.split()) for text in texts) / len(texts))
        exact.append(sum(re.search(rf"\b{p.top_colour}\b", t) is not None for p, t in zip(crowd, texts, strict=True)))
    assert twins == sorted(twins)
    assert twins[0] < 0.1 * 150
    assert twins[-1] > 0.8 * 150
    assert words == sorted(words, reverse=True)
    assert exact == sorted(exact, reverse=True)
    assert 26 <= words[list(LEVELS).index("hard")] <= 33
    assert len(words) >= 3


def _colours_in(text: str) -> set[str]:
    known = {word for table in (COLOUR_WORDS, LOOSE_WORDS, HAIR_WORDS) for words in table.values() for word in words}
    longest_first = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    return set(re.findall(rf"(?<![\w-])(?:{longest_first})(?![\w-])", text))


def _allowed(person: Person) -> set[str]:
    names = [value for name, value in dataclasses.asdict(person).items() if name.endswith(("_colour", "_second"))]
    allowed = {w for name in names for w in (*COLOUR_WORDS.get(name, ()), *LOOSE_WORDS.get(name, ()))}
    allowed |= set(HAIR_WORDS.get(person.hair_colour, ()))
    allowed |= {"white"} if person.lower_pattern == "side stripe" else set()
    return allowed | ({"dark"} if person.glasses == "sunglasses" else set())


@pytest.mark.parametrize("difficulty", LEVELS)
def test_captions_are_truthful(difficulty):
    level = LEVELS[difficulty]
    for _, number, person in people(7, level, (300, 0, 0)):
        text = caption(person, Sight("right", False, ALL_SEEN), level, Dice(7, number)).lower()
        assert _colours_in(text) <= _allowed(person), (text, person)
        assert not re.search(r"\b(none|an? (?:a|an))\b|  |\{|\ba [aeio]", text), text
        if person.sex == "man":
            assert not re.search(r"\b(woman|lady|she|her)\b", text)
        if person.bag == "none":
            assert not re.search(r"\b(bag|backpack|rucksack|suitcase|handbag|luggage|carrying)\b", text)
        if person.glasses == "none":
            assert "glasses" not in text


def test_captions_name_no_more_than_is_seen():
    level = LEVELS["easy"]
    for _, number, person in people(8, level, (150, 0, 0)):
        text = caption(person, Sight("back", True, frozenset({"top", "jacket"})), level, Dice(8, number)).lower()
        assert not re.search(
            r"\b(hair|shoes|boots|sneakers|jeans|trousers|skirt|shorts|bag|glasses|cap|logo)\b", text
        ), text
        assert person.jacket == "none" or not re.search(r" (over|on top of) ", text)


def test_what_a_view_hides():
    level = LEVELS["easy"]
    (_, _, person), *_ = people(9, level, (1, 0, 0))
    person = dataclasses.replace(person, top="t-shirt", top_pattern="logo", top_second="white", jacket="none")
    person = dataclasses.replace(person, bag="handbag", bag_side="left", bag_colour="red", glasses="glasses")
    seen = {}
    for name, yaw in {"front": 0.0, "right": 1.57, "back": 3.14}.items():
        photos = [photograph(person, look_of(person, Dice(1)), yaw, 96, level, Dice(1, n)) for n in range(8)]
        assert {photo.facing for photo in photos} == {name}
        seen[name] = set().union(*(photo.seen for photo in photos))
        assert Image.open(io.BytesIO(photos[0].jpeg)).size[1] > 50
    assert {"logo", "face", "bag", "shoes"} <= seen["front"]
    assert not {"logo", "face"} & seen["back"]
    assert "bag" not in seen["right"]


def test_bad_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        ensure(tmp_path / "file", SMALL)
    (tmp_path / "Mannequins").mkdir()
    with pytest.raises(ValueError, match="no drawn data set"):
        ensure(tmp_path, SMALL)
    with pytest.raises(ValueError, match="--workers 0: expected at least 1"):
        draw(tmp_path / "none", SMALL, workers=0)
    with pytest.raises(ValueError, match="--layout 'Market': choose one of Mannequins"):
        draw(tmp_path / "Market", SMALL, "Market")


def test_ensure_draws_once_and_notices_other_options(tmp_path, monkeypatch):
    folder = ensure(tmp_path, SMALL, workers=1)
    monkeypatch.setattr(mannequins, "draw", lambda *_: pytest.fail("drawn twice"))
    assert ensure(tmp_path, SMALL) == folder
    said = "was drawn with --mannequin_difficulty medium, not hard; delete that folder or choose another --root_dir"
    with pytest.raises(ValueError, match=said):
        ensure(tmp_path, dataclasses.replace(SMALL, mannequin_difficulty="hard"))


def test_two_at_once(tmp_path):
    options = dataclasses.replace(SMALL, mannequin_train_ids=4)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: ensure(tmp_path, options, workers=1), range(2)))
    assert folders == [tmp_path / "Mannequins"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["Mannequins"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mannequins, "photograph", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "Mannequins", SMALL, workers=1)
    assert list(tmp_path.iterdir()) == []
