"""Importing: every form gives the same shards, nothing is lost without being listed, and a killed import continues."""

import io
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from datasets.images.decode import decode, decode_bytes
from datasets.shards.forms import FORMS
from datasets.shards.importing import LEFT_OUT, import_shards
from datasets.shards.index import ShardIndex
from datasets.shards.plan import ImportOptions
from datasets.shards.tar import scan_shard
from datasets.shards.verify import verify_shards
from tests.helpers.annotations import write_form, write_images
from tests.helpers.runs import started
from utils import UserError

COUNT = 7


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def captions() -> dict[str, list[str]]:
    names = [f"part{number % 2}/{number}.jpg" for number in range(COUNT)]
    return {name: [f"A man with {n} bags, é.", f"He wears number {n}."] for n, name in enumerate(names)}


def left_out(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / LEFT_OUT).read_text().splitlines()]
    return sorted((image, reason) for image, reason, _ in rows)


def content(index: ShardIndex) -> dict[bytes, tuple[list[str], int]]:
    """Image bytes to captions and identity."""
    return {index.image_bytes(n): (index.captions_of(n), int(index.pid_N[n])) for n in range(len(index))}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_images_and_captions_as_they_are(form, images, captions, tmp_path):
    annotation = write_form(form, tmp_path, captions, images)
    folder = images
    if form == "luperson-mllm":  # one flat folder
        folder = tmp_path / "flat"
        folder.mkdir()
        for name in captions:
            shutil.copy(images / name, folder)
    first = import_shards(ImportOptions("auto", tuple(annotation), folder, shard_size=3), tmp_path / "auto", 1)
    import_shards(ImportOptions(form, tuple(annotation), folder, shard_size=3), tmp_path / "named", 2)
    texts = {name: texts[:1] if form in ("mals", "sda") else texts for name, texts in captions.items()}
    assert {data: found for data, (found, _) in content(first).items()} == {
        (images / name).read_bytes(): expected for name, expected in texts.items()
    }
    pids = {data: pid for data, (_, pid) in content(first).items()}
    by_number = [pids[(images / name).read_bytes()] for name in captions]
    if form in ("synth-pedes", "reid-raw", "csv"):
        assert len(set(by_number)) == 4 and by_number[0] == by_number[1] != by_number[2] == by_number[3]
    else:
        assert set(by_number) == {-1}
    tars = sorted(path.name for path in (tmp_path / "auto").glob("*.tar"))
    assert tars == ["000000.tar", "000001.tar", "000002.tar"]
    for tar in tars:
        assert (tmp_path / "auto" / tar).read_bytes() == (tmp_path / "named" / tar).read_bytes()
    assert left_out(tmp_path / "auto") == []
    assert verify_shards(first, 1) == []
    assert not (tmp_path / "auto" / ".import").exists()


def test_webdataset_and_open_clip_read_the_shards(images, captions, tmp_path):
    annotation = write_form("reid-raw", tmp_path, captions, images)
    import_shards(ImportOptions("auto", tuple(annotation), images, shard_size=4), tmp_path / "out", 1)
    pattern = str(tmp_path / "out" / "{000000..000001}.tar")
    samples = list(webdataset.WebDataset(pattern, shardshuffle=False).decode("pilrgb"))
    assert len({sample["__key__"] for sample in samples}) == COUNT
    for sample in samples:
        about = sample["json"]
        assert about["captions"] == captions[about["source"]]
        assert sample["txt"] == about["captions"][0]  # open_clip_train renames txt to text and jpg to image
        assert about["id"] == list(captions).index(about["source"]) // 2
        assert np.array_equal(np.asarray(sample["jpg"]), np.asarray(decode(images / about["source"])))


def test_resized(images, captions, tmp_path):
    annotation = write_form("ham", tmp_path, captions, images)
    index = import_shards(ImportOptions("ham", tuple(annotation), images, resize=(48, 16)), tmp_path / "out", 1)
    assert index.about["resize"] == [48, 16]
    pictures = [decode_bytes(index.image_bytes(n), "") for n in range(len(index))]
    assert {picture.size for picture in pictures} == {(16, 48)}
    assert verify_shards(index, 1) == []


def test_caption_keys(images, captions, tmp_path):
    annotation = tuple(write_form("reid-raw", tmp_path, captions, images))
    keys = ("captions_bt", "mllm_captions")
    index = import_shards(ImportOptions("auto", annotation, images, caption_keys=keys), tmp_path / "out", 1)
    expected = [[f"{text} again" for text in texts] + texts for texts in captions.values()]
    assert sorted(found for found, _ in content(index).values()) == sorted(expected)
    with pytest.raises(UserError, match="--caption_keys words: the form reid-raw has captions, captions_bt"):
        import_shards(ImportOptions("auto", annotation, images, caption_keys=("words",)), tmp_path / "other", 1)


def test_everything_left_out_is_counted_and_listed(images, captions, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    names = list(captions)
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:300])
    (folder / names[2]).write_bytes(b"")
    rows = [{"id": 1, "split": "train", "file_path": name, "captions": ["a man"]} for name in names]
    rows[3]["captions"] = ["  ", "a [description] of", "a <person>", "I'm sorry, but I can't"]
    rows[4]["captions"] = ["", "a  woman\nin red ", "lone \ud800 surrogate"]
    rows[5]["split"] = "test"
    rows += [{"id": 1, "split": "train", "captions": ["no path"]}, {**rows[6], "captions": ["twice"]}, 17]
    path = tmp_path / "reid_raw.json"
    path.write_text(json.dumps(rows))
    options = ImportOptions("reid-raw", (path,), folder, bad_records="skip")
    index = import_shards(options, tmp_path / "out", 1)
    assert sorted(found for found, _ in content(index).values()) == [["a man"], ["a woman in red"]]
    expected = [
        (names[0], "missing"),
        (names[1], "damaged"),
        (names[2], "damaged"),
        (names[3], "empty caption"),
        (names[3], "no caption"),
        (names[3], "refusal"),
        (names[3], "template caption"),
        (names[3], "template caption"),
        (names[4], "empty caption"),
        (names[4], "not Unicode"),
        (names[5], "other split"),
        (names[6], "duplicate"),
        ("reid_raw.json, record 7", "bad record"),
        ("reid_raw.json, record 9", "bad record"),
    ]
    assert left_out(tmp_path / "out") == sorted(expected)
    counts = index.about["left_out"]
    assert sum(counts.values()) == len(expected) and counts["damaged"] == 2 and counts["template caption"] == 2


def test_faulty_records_are_named(images, captions, tmp_path):
    names = list(captions)
    good = [{"id": 1, "split": "train", "file_path": name, "captions": ["a man"]} for name in names]
    path = tmp_path / "a.json"

    def refused(rows: list, form: str = "reid-raw") -> str:
        path.write_text(json.dumps(rows))
        with pytest.raises(UserError) as caught:
            import_shards(ImportOptions(form, (path,), images), tmp_path / "out", 1)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert refused([*good, {**good[0], "captions": "x", "file_path": "../x"}]) == (
        f"{path}: record 7 path '../x' is not one below the folder of images; mend it, or give --bad_records skip"
    )
    assert "record 7 has no 'captions'" in refused([*good, {"id": 1, "split": "train", "file_path": "x"}])
    assert "record 7 id 1.5 is neither" in refused([*good, {**good[0], "id": 1.5}])
    assert "record 7 captions [3] are not all texts" in refused([*good, {**good[0], "captions": [3]}])
    assert f"record 7 names the image {names[2]!r}, as record 2 does" in refused([*good, good[2]])
    assert "looks like --form reid-raw" in refused(good, "ham")
    assert "looks like --form reid-raw" in refused(good, "mals")
    assert "has none of" in refused([{**row, "file_path": "x/" + row["file_path"]} for row in good])
    assert "no image is left (7 other split)" in refused([{**row, "split": "val"} for row in good])
    assert "holds no record" in refused([], "auto")
    assert "of none of the known forms; the first record is {'a': 1}" in refused([{"a": 1}], "auto")


def test_the_right_folder_is_suggested(images, captions, tmp_path):
    annotation = tuple(write_form("ham", tmp_path, captions, images))
    root = tmp_path / "root"
    root.mkdir()
    (root / "imgs").symlink_to(images)
    with pytest.raises(UserError, match=f"has none of .*; give {root}/imgs$"):
        import_shards(ImportOptions("ham", annotation, root), tmp_path / "out", 1)
    with pytest.raises(UserError, match=f"--images: needed for {annotation[0]}"):
        import_shards(ImportOptions("ham", annotation, None), tmp_path / "out", 1)


def test_several_files_are_joined_by_image(images, captions, tmp_path):
    paths = []
    for kind, number in (("qa", 0), ("com", 1)):
        rows = [{"file_path": name, "captions": [texts[number]]} for name, texts in captions.items()]
        paths.append(tmp_path / f"LargeFine_Person_{kind}.json")
        paths[-1].write_text(json.dumps(rows))
    index = import_shards(ImportOptions("auto", tuple(paths), images), tmp_path / "out", 1)
    assert sorted(found for found, _ in content(index).values()) == sorted(captions.values())
    rows = [{"id": n, "split": "train", "file_path": name, "captions": ["x"]} for n, name in enumerate(captions)]
    for n, path in enumerate(paths):
        path.write_text(json.dumps([{**row, "id": row["id"] + n} for row in rows]))
    with pytest.raises(UserError, match=r"LargeFine_Person_com.json: record \d gives the image .* the id"):
        import_shards(ImportOptions("auto", tuple(paths), images), tmp_path / "other", 1)


def test_images_of_test_sets_are_left_out(images, tmp_path):
    """Also after resizing and compressing them."""
    names = [f"part{number % 2}/{number}.jpg" for number in range(COUNT)]
    benchmark, own = tmp_path / "CUHK", tmp_path / "own"
    (benchmark / "imgs").mkdir(parents=True)
    own.mkdir()
    rows = []
    for number, name in enumerate(names):
        picture = Image.open(images / name).resize((80, 120), Image.Resampling.BICUBIC)
        picture.save(benchmark / "imgs" / f"{number}.png")
        split = ("test", "val", "train")[min(number, 2)]
        rows.append({"id": number, "split": split, "file_path": f"{number}.png", "captions": ["x"]})
        buffer = io.BytesIO()
        picture.resize((37, 61)).save(buffer, "JPEG", quality=40)
        (own / f"{number}.jpg").write_bytes(buffer.getvalue())
    (benchmark / "reid_raw.json").write_text(json.dumps(rows))
    path = tmp_path / "ham.json"
    path.write_text(json.dumps({f"{number}.jpg": ["a man"] for number in range(COUNT)}))
    options = ImportOptions("ham", (path,), own, exclude_like=(benchmark,))
    index = import_shards(options, tmp_path / "out", 2)
    assert left_out(tmp_path / "out") == [("0.jpg", "in a test set"), ("1.jpg", "in a test set")]
    assert len(index) == COUNT - 2
    details = [json.loads(line)[2] for line in (tmp_path / "out" / LEFT_OUT).read_text().splitlines()]
    assert sorted(details) == [str(benchmark / "imgs" / "0.png"), str(benchmark / "imgs" / "1.png")]
    (benchmark / "imgs" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match="--exclude_like: 1 test images cannot be read: .*0.png: the file is empty"):
        import_shards(options, tmp_path / "other", 1)


def test_a_finished_import_is_left_alone_and_another_one_refused(images, captions, tmp_path):
    annotation = tuple(write_form("ham", tmp_path, captions, images))
    options = ImportOptions("ham", annotation, images)
    import_shards(options, tmp_path / "out", 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    import_shards(options, tmp_path / "out", 1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match=r"was made with --resize None, now it is \[8, 8\]; delete that folder"):
        import_shards(ImportOptions("ham", annotation, images, resize=(8, 8)), tmp_path / "out", 1)
    os.utime(annotation[0], (1, 1))
    with pytest.raises(UserError, match="was made with --annotation"):
        import_shards(options, tmp_path / "out", 1)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file").touch()
    with pytest.raises(UserError, match="is not empty, and no import that was stopped"):
        import_shards(options, tmp_path / "own", 1)


def test_a_killed_import_continues(tmp_path):
    """Killed twice without warning: the same bytes as in one go, and no finished shard is written again."""
    folder = tmp_path / "images"
    names = write_images(folder, 400)
    path = tmp_path / "ham.json"
    path.write_text(json.dumps({name: [f"a man {name}"] for name in names}))
    whole = import_shards(ImportOptions("ham", (path,), folder, shard_size=10), tmp_path / "whole", 1)
    out = tmp_path / "out"
    line = ["--form", "ham", "--annotation", path, "--images", folder, "--shard_size", "10", "--output", out]
    seen: dict[Path, int] = {}
    for wanted in (2, 10):
        with started("-m", "datasets.shards", "import", *line, "--workers", "2") as process:
            while len(list(out.glob(".import/*.npz"))) < wanted and process.poll() is None:
                time.sleep(0.002)
            os.killpg(process.pid, signal.SIGKILL)
        assert not (out / "index").exists()
        done = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
        assert seen.items() <= done.items()
        finished = {path.stem for path in out.glob(".import/*.npz")}
        seen = {path: stamp for path, stamp in done.items() if path.stem in finished}
        for whole_one in done:
            scan_shard(whole_one)
    again = import_shards(ImportOptions("ham", (path,), folder, shard_size=10), out, 2)
    assert seen.items() <= {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}.items()
    assert content(again) == content(whole)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())
    for tar in whole.shards:
        assert (out / tar).read_bytes() == (tmp_path / "whole" / tar).read_bytes()
