"""The annotation files of every data set, good and bad."""

import json
import logging

import pytest

from datasets import cuhk_pedes, custom, icfg_pedes, iiitd_20k, prw_tps_cn, rstpreid, ufine3c, ufine6926
from datasets.annotations import DataError
from datasets.records import counts


def defaults(group):
    """No flag is given."""
    return group()


def record(pid=0, image="a.jpg", captions=("A man.",), split="train", key="file_path", **more):
    return {"id": pid, "captions": list(captions), "split": split, key: image, **more}


def write(folder, content, name="reid_raw.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def published_like(published, key, first_id):
    """Annotations with exactly the published counts."""
    content = []
    for split, (ids, images, captions) in published.items():
        for number in range(images):
            mine = captions // images + (number < captions % images)
            content.append(record(first_id + number % ids, f"{split}/{number}.jpg", ["A man."] * mine, split, key))
        first_id += ids
    return content


READERS = {
    "CUHK-PEDES": (cuhk_pedes, "reid_raw.json", "file_path", 1),
    "ICFG-PEDES": (icfg_pedes, "ICFG-PEDES.json", "file_path", 0),
    "RSTPReid": (rstpreid, "data_captions.json", "img_path", 0),
    "UFine6926": (ufine6926, "UFine6926_Annotations_1024.json", "file_path", 1),
    "UFine3C": (ufine3c, "any.json", "file_path", 17),
    "IIITD-20K": (iiitd_20k, "list.json", "file_path", 5),
    "PRW-TPS-CN": (prw_tps_cn, "prw_cn_caption_crops.json", "file_path", 3),
}
OF_SPLITS = {
    "UFine6926": {"train": (4926, 18577, 37154), "test": (2000, 7629, 15258)},
    "PRW-TPS-CN": {"train": (500, 6000, 24000), "test": (493, 5776, 23102)},
}
"""of the data sets of which only some numbers are published: counts that add up to them"""


@pytest.mark.parametrize("name", READERS)
def test_published_counts_are_silent(name, tmp_path, caplog):
    module, file, key, first_id = READERS[name]
    published = OF_SPLITS.get(name, module.PUBLISHED)
    content = published_like(published, key, first_id)
    write(tmp_path / name, content, file)
    with caplog.at_level(logging.WARNING, "descry"):
        dataset = module.load(tmp_path, defaults)
    assert not caplog.records
    for split, expected in published.items():
        assert counts(dataset.split(split)) == expected
    assert sorted({r.pid for r in dataset.train}) == list(range(published.get("train", (0,))[0]))
    assert [r.image_id for r in dataset.train] == list(range(len(dataset.train)))
    folder = tmp_path / name if name.startswith("UFine") else tmp_path / name / "imgs"
    assert dataset.test[0].path == folder / "test" / "0.jpg"
    assert dataset.test[0].pid == next(r["id"] for r in content if r["split"] == "test")


def test_differences_from_the_published_counts_are_named(tmp_path, caplog):
    content = published_like(rstpreid.PUBLISHED, "img_path", 0)
    write(tmp_path / "RSTPReid", content[:-1], "data_captions.json")
    with caplog.at_level(logging.WARNING, "descry"):
        rstpreid.load(tmp_path, defaults)
    (message,) = caplog.messages
    assert "test has 999 images, published 1000; test has 1998 captions, published 2000." in message
    assert "train" not in message
    assert "val" not in message


@pytest.mark.parametrize("name", OF_SPLITS)
def test_published_counts_of_the_whole_are_compared_too(name, tmp_path, caplog):
    module, file, key, first_id = READERS[name]
    write(tmp_path / name, published_like(OF_SPLITS[name], key, first_id)[:-1], file)
    with caplog.at_level(logging.WARNING, "descry"):
        module.load(tmp_path, defaults)
    (message,) = caplog.messages
    _, images, captions = module.PUBLISHED["all"]
    assert f"the whole has {images - 1} images, published {images}; the whole has" in message
    assert f"published {captions}" in message and "val" not in message and "None" not in message


def test_ufine_looks_for_images_beside_the_annotation_and_in_imgs(tmp_path):
    write(tmp_path / "UFine3C", [record(1, "images/a.jpg", split="test", source="PRCC")], "UFine3C.json")
    beside, inside = (tmp_path / "UFine3C" / place / "images" / "a.jpg" for place in (".", "imgs"))
    assert ufine3c.load(tmp_path, defaults).test[0].path == beside
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert ufine3c.load(tmp_path, defaults).test[0].path == inside


@pytest.mark.parametrize(("module", "folder"), [(cuhk_pedes, "CUHK-PEDES"), (custom, "")])
def test_the_file_without_splits_is_refused_with_the_reason(module, folder, tmp_path):
    rows = [{key: value for key, value in record(1).items() if key != "split"}]
    write(tmp_path / folder, rows, "caption_all.json")
    with pytest.raises(DataError, match=r"caption_all.json: is not the file of the benchmark, because it has no split"):
        module.load(tmp_path, defaults)
    write(tmp_path / folder, [record(1)])
    assert len(module.load(tmp_path, defaults).train) == 1


def test_icfg_takes_both_file_names(tmp_path):
    write(tmp_path / "ICFG-PEDES", [record()], "ICFG_PEDES.json")
    assert len(icfg_pedes.load(tmp_path, defaults).train) == 1


def test_captions_keep_their_text_without_outer_blanks(tmp_path):
    texts = ["  A man\n in red. \n", "Ein Mädchen – 女孩 🙂", *"abcdefgh"]
    write(tmp_path, [record(captions=texts, processed_tokens=[["a"]])])
    assert custom.load(tmp_path, defaults).train[0].captions == (
        "A man\n in red.",
        "Ein Mädchen – 女孩 🙂",
        *"abcdefgh",
    )


def test_byte_order_mark(tmp_path):
    write(tmp_path, "\ufeff" + json.dumps([record()]))
    assert len(custom.load(tmp_path, defaults).train) == 1


def test_custom_ids_keys_and_folders(tmp_path):
    content = [
        record(70, "x/a.jpg"),
        record(-3, "b.jpg", key="img_path"),
        record(70, "imgs/c.jpg"),
        record(9, "d.jpg", split="test"),
    ]
    write(tmp_path, content, "my_annotations.json")
    for image in ("imgs/x/a.jpg", "b.jpg", "imgs/c.jpg"):
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).write_bytes(b"")
    dataset = custom.load(tmp_path, defaults)
    assert [r.pid for r in dataset.train] == [1, 0, 1]
    assert [r.path for r in dataset.train] == [tmp_path / p for p in ("imgs/x/a.jpg", "b.jpg", "imgs/c.jpg")]
    assert dataset.test[0].pid == 9
    assert dataset.test[0].path == tmp_path / "imgs" / "d.jpg"
    assert dataset.val == ()


def test_custom_needs_one_annotation_file(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        custom.load(tmp_path / "nowhere", defaults)
    with pytest.raises(DataError, match="has no reid_raw.json"):
        custom.load(tmp_path, defaults)
    write(tmp_path, [record()], "a.json")
    write(tmp_path, [record()], "b.json")
    with pytest.raises(DataError, match="which of a.json, b.json"):
        custom.load(tmp_path, defaults)
    write(tmp_path, [record()])
    assert custom.load(tmp_path, defaults).train


BAD_FILES = {
    "[{]": r"not JSON \(line 1, column 3",
    "": "not JSON",
    '{"a": 1}': "expected a list of records, found a JSON dict",
    "[]": "empty",
    "[" * 100_000: "nested too deeply",
    "[" + "9" * 5000 + "]": "not usable JSON",
}


@pytest.mark.parametrize("content", BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_file(content, tmp_path):
    write(tmp_path, content)
    with pytest.raises(DataError, match=BAD_FILES[content]) as caught:
        custom.load(tmp_path, defaults)
    assert "reid_raw.json" in str(caught.value)


def test_not_utf8(tmp_path):
    (tmp_path / "reid_raw.json").write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 2\)"):
        custom.load(tmp_path, defaults)


def without_key(key):
    return {k: v for k, v in record(1, "b.jpg").items() if k != key}


BAD_RECORDS = {
    "text": ("x", "not an object: record 1: 'x'"),
    "no id": (without_key("id"), "record 1: id"),
    "no captions key": (without_key("captions"), "record 1: captions"),
    "no split": (without_key("split"), "record 1: split"),
    "no image": (without_key("file_path"), "record 1: no file_path or img_path"),
    "split": (record(1, "b.jpg", split="valid"), "unknown split: record 1: split 'valid'. The split is train"),
    "split list": (record(1, "b.jpg", split=["train"]), "unknown split"),
    "id text": (record("1", "b.jpg"), "not a whole number: record 1: id '1'"),
    "id bool": (record(True, "b.jpg"), "not a whole number"),
    "id float": (record(1.0, "b.jpg"), "not a whole number"),
    "id huge": (record(2**70, "b.jpg"), "not a whole number"),
    "captions text": (record(1, "b.jpg") | {"captions": "A man."}, "not a list of texts"),
    "captions numbers": (record(1, "b.jpg", [1]), "not a list of texts"),
    "no captions": (record(1, "b.jpg", []), "without captions: record 1"),
    "empty caption": (record(1, "b.jpg", ["A man.", " \n "]), "empty caption: record 1: caption 1"),
    "surrogate": (record(1, "b.jpg", ["\ud800"]), "not valid Unicode: record 1: caption 0"),
    "duplicate": (record(1, "./a.jpg"), "record 1: 'a.jpg' as record 0"),
    "absolute": (record(1, "/etc/passwd"), "file_path '/etc/passwd'. Write it relative"),
    "escape": (record(1, "x/../../b.jpg"), "not usable"),
    "empty path": (record(1, ""), "not usable"),
    "null byte": (record(1, "b\0.jpg"), "not usable"),
    "path number": (record(1, 5), "not usable"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_bad_record(case, tmp_path):
    bad, message = BAD_RECORDS[case]
    write(tmp_path, [record(), bad])
    with pytest.raises(DataError) as caught:
        custom.load(tmp_path, defaults)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'reid_raw.json'}: 1 record ")


def test_many_bad_records_are_counted_and_other_kinds_mentioned(tmp_path):
    write(tmp_path, [record(n, f"{n}.jpg", split="dev") for n in range(12)] + [record(1, "x.jpg", [])])
    with pytest.raises(DataError) as caught:
        custom.load(tmp_path, defaults)
    message = str(caught.value)
    assert "12 records with an unknown split" in message
    assert "record 4: split 'dev'; and 7 more" in message
    assert "record 5" not in message
    assert "Further records: 1 without captions." in message


@pytest.mark.parametrize(
    ("ids", "missing", "outside"), [((1, 2, 4), "3", "4"), ((0, 1, 2), "3", "0"), ((2,), "1", "2")]
)
def test_id_gap(ids, missing, outside, tmp_path):
    write(tmp_path / "CUHK-PEDES", [record(pid, f"{pid}.jpg") for pid in ids])
    with pytest.raises(DataError, match=rf"missing: {missing}; outside that range: {outside}\."):
        cuhk_pedes.load(tmp_path, defaults)


def test_gap_in_test_ids_is_fine(tmp_path):
    write(
        tmp_path / "CUHK-PEDES", [record(1), record(11004, "b.jpg", split="test"), record(12004, "c.jpg", split="val")]
    )
    assert cuhk_pedes.load(tmp_path, defaults).test[0].pid == 11004


@pytest.mark.parametrize("name", READERS)
def test_missing_file_says_what_to_do(name, tmp_path):
    with pytest.raises(DataError, match=r"no such folder; --root_dir must point to where"):
        READERS[name][0].load(tmp_path, defaults)


def test_leaks_between_the_splits_of_a_custom_set_are_counted(tmp_path):
    content = [
        *(record(pid, f"{pid}.jpg") for pid in range(4)),
        *(record(pid, f"t{pid}.jpg", split="test") for pid in (1, 3, 9)),
    ]
    content += [record(8, "imgs/0.jpg", split="val"), record(7, "1.jpg", split="val")]
    write(tmp_path, content)
    (tmp_path / "imgs").mkdir()
    for number in range(4):
        (tmp_path / "imgs" / f"{number}.jpg").touch()
    one, other = custom.load(tmp_path, defaults).leaks
    assert one == "2 identities are in train and in test (1, 3)"
    assert other.startswith("2 images are in train and in val (") and "imgs/0.jpg" in other, "spelt in two ways"


def test_splits_that_number_their_identities_separately_are_no_error(tmp_path):
    content = [
        *(record(pid, f"{pid}.jpg") for pid in range(4)),
        *(record(pid, f"t{pid}.jpg", split="test") for pid in range(3)),
    ]
    write(tmp_path / "RSTPReid", [{**row, "img_path": row.pop("file_path")} for row in content], "data_captions.json")
    (said,) = rstpreid.load(tmp_path, defaults).leaks
    assert "the same 3 identities are in train and in test (0, 1, 2), unless each split has its own numbers" in said
