"""One shard: written and scanned, also where others wrote it, and what is refused."""

import io
import json
import tarfile

import pytest
import webdataset

from datasets.annotations import DataError
from datasets.shards.tar import ShardContent, ShardRecord, image_format, scan_shard, write_shard
from tests.helpers.images import jpeg_bytes, photo

RECORDS = [
    ShardRecord("00aa", jpeg_bytes(), ["a mån", "a woman"], "x/1.jpg", 3),
    ShardRecord("00bb", b"\x89PNG...", ["a child"], "x/2.png", None),
    ShardRecord("00cc", b"BM", ["one", "two", "three"], "x/3.bmp", "p7"),
]


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def assert_equal(one: ShardContent, other: ShardContent) -> None:
    assert all((a == b).all() for a, b in zip(one[:4], other[:4], strict=True))
    assert one[4:] == other[4:]


def test_what_is_written_is_a_tar_file_and_scanned_again(tmp_path):
    path = tmp_path / "0.tar"
    written = write_shard(path, RECORDS)
    with tarfile.open(path) as tar:
        names = ["00aa.jpg", "00aa.json", "00aa.txt", "00bb.png", "00bb.json", "00bb.txt", "00cc.bmp", "00cc.json"]
        assert tar.getnames() == [*names, "00cc.txt"]
        assert tar.extractfile("00aa.jpg").read() == RECORDS[0].image
        assert json.loads(tar.extractfile("00cc.json").read())["id"] == "p7"
    content = scan_shard(path)
    assert_equal(written, content)
    data = path.read_bytes()
    places = zip(content.offset_N.tolist(), content.size_N.tolist(), strict=True)
    assert [data[offset : offset + size] for offset, size in places] == [record.image for record in RECORDS]
    assert content.caption_count_N.tolist() == [2, 1, 3] and content.pids == [3, None, "p7"]
    assert content.text.decode() == "a måna womana childonetwothree"
    assert content.text_size_C.tolist() == [6, 7, 7, 3, 3, 5]
    content.save(tmp_path / "0.npz", left_out=[["a", "b", "c"]])
    assert_equal(ShardContent.load(tmp_path / "0.npz"), content)
    assert ShardContent.load_head(tmp_path / "0.npz")["left_out"] == [["a", "b", "c"]]


def test_an_empty_shard(tmp_path):
    write_shard(tmp_path / "0.tar", [])
    content = scan_shard(tmp_path / "0.tar")
    assert len(content.offset_N) == len(content.text_size_C) == 0


def test_shards_that_webdataset_wrote(tmp_path):
    path = tmp_path / "0.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(3):
            image = {"jpg": photo(seed=number), "json": {"captions": [f"{number}"]}, "cls": number}
            writer.write({"__key__": f"folder/{number}.x" if number < 0 else f"folder/{number}", **image})
    content = scan_shard(path)
    assert content.text == b"012" and content.pids == [None] * 3
    data = path.read_bytes()
    assert all(data[offset : offset + 2] == b"\xff\xd8" for offset in content.offset_N)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], "key a has no KEY.json with captions"),
        ([("a.json", b'{"captions": ["x"]}')], "key a has no image"),
        ([("a.jpg", b"x"), ("a.png", b"y"), ("a.json", b'{"captions": ["x"]}')], "key a has two images"),
        ([("a.jpg", b"x"), ("a.json", b"{")], "a.json is not JSON"),
        ([("a.jpg", b"x"), ("a.json", b'{"captions": []}')], "a.json holds {'captions': \\[\\]}, expected a list"),
        ([("a.jpg", b"x"), ("a.json", b'{"captions": [1]}')], ".*expected a list of texts"),
        ([("a.jpg", b"x"), ("a.json", b"[]")], ".*expected a list of texts"),
        (
            [(f"{key}.{end}", b'{"captions": ["x"]}') for key in "aba" for end in ("jpg", "json")],
            "key a is there twice",
        ),
    ],
)
def test_records_that_are_not_whole_are_named(members, message, tmp_path):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add(tar, name, data)
    with pytest.raises(DataError, match=f"^{path}: {message}"):
        scan_shard(path)


def test_a_shard_cut_off_anywhere_is_refused(tmp_path):
    path = tmp_path / "0.tar"
    write_shard(path, RECORDS)
    data = path.read_bytes()
    for end in range(0, len(data) - 1024, 300):
        path.write_bytes(data[:end])
        with pytest.raises(DataError, match=f"^{path}: (cut off or damaged|key)"):
            scan_shard(path)
    path.write_bytes(b"no tar file" * 1000)
    with pytest.raises(DataError, match="cut off or damaged"):
        scan_shard(path)
    with pytest.raises(DataError, match="no such shard"):
        scan_shard(tmp_path / "1.tar")


@pytest.mark.parametrize(
    ("format", "suffix"),
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("PPM", "ppm"),
    ],
)
def test_image_formats(format, suffix):
    buffer = io.BytesIO()
    photo().save(buffer, format)
    assert image_format(buffer.getvalue()) == suffix
