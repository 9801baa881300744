"""The drawn data set: the same bytes from the same seed, the published layouts, one set at a time."""

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from datasets.mannequins import draw as mannequins
from datasets.mannequins.draw import draw, ensure
from datasets.mannequins.options import LAYOUTS, MannequinOptions

SMALL = MannequinOptions(20, 4, 6, "2-3", mannequin_height=64)


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


def test_bad_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        ensure(tmp_path / "file", SMALL)
    (tmp_path / "Mannequins").mkdir()
    with pytest.raises(ValueError, match="not a drawn data set"):
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
