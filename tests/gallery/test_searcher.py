"""Queries and their features; contact sheets and exports."""

import json
import os
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from gallery.index import IndexedPhotos
from gallery.options import QueryOptions
from gallery.photos import printable
from gallery.results import Answer, export, write_answers
from gallery.searcher import PhotoHit, Searcher
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.feature_encoder import FeatureEncoder
from model.retriever import Retriever
from tests.helpers.colours import COLOURS, SIZE, ColourModel, colour_encoder, colour_searcher, paint, unit_rows


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    gallery = tmp_path / "gallery"
    for name in ("red", "green", "blue"):
        paint(gallery / f"{name}.png", name)
    return colour_searcher(gallery, tmp_path / "index")


def test_sentences_images_and_photos_find_their_colour(searcher: Searcher, tmp_path: Path):
    found = searcher.by_texts(["a red hat", "blue", "green"], 1)
    assert [hits[0].name for hits in found] == ["red.png", "blue.png", "green.png"]
    paint(tmp_path / "query.jpg", "blue")
    assert searcher.by_image(tmp_path / "query.jpg", 2)[0].name == "blue.png"
    for hit in searcher.by_texts(["red"], 10)[0]:
        first = searcher.by_photo(hit.position, 3)[0]
        assert first.name == hit.name and first.score == pytest.approx(1, abs=1e-5)
    red = searcher.by_texts(["red"], 1)[0][0]
    expected = 250 / np.sqrt(250**2 + 2 * 20**2)
    assert red.score == pytest.approx(expected, abs=1e-6)
    assert len(searcher.by_texts(["red"], 10)[0]) == 3
    assert searcher.by_texts([], 10) == []
    many = searcher.by_texts(["red", "green"] * 100, 1)
    assert [hits[0].name for hits in many] == ["red.png", "green.png"] * 100
    for position in (-1, 3):
        with pytest.raises(IndexError):
            searcher.by_photo(position, 1)


def test_a_model_that_attends_over_the_batch_sees_one_sample_at_a_time():
    pixels_BCHW = torch.randint(0, 255, (3, 3, *SIZE), dtype=torch.uint8)
    texts = ["red", "green red blue", "blue"]
    leaking, alone = colour_encoder(ColourModel(attends_over_batch=True)), colour_encoder()
    torch.testing.assert_close(leaking.encode_pixels(pixels_BCHW), alone.encode_pixels(pixels_BCHW))
    torch.testing.assert_close(leaking.encode_text(texts), alone.encode_text(texts))


def test_padding_is_kept_for_a_model_that_reads_it():
    lengths = []

    class Watching(ColourModel):
        def encode_text(self, ids_BL: torch.Tensor, lengths_B: torch.Tensor) -> NamedTuple:
            lengths.append((ids_BL.shape[1], lengths_B.tolist()))
            return super().encode_text(ids_BL, lengths_B)

    for reads_padding in (False, True):
        colour_encoder(Watching(), reads_padding).encode_text(["red", "red hat"])
    assert lengths == [(4, [3, 4]), (6, [3, 4])]


def test_queries_with_id_0_inside_keep_their_end():
    model = Retriever(load_backbone(BackboneOptions("tiny"))).eval()
    encoder = FeatureEncoder(model, model.input_format(77))
    texts = ["a man in black !(", "a woman in a red coat !("]
    alone_QD = torch.cat([encoder.encode_text(text) for text in texts])
    with torch.inference_mode():
        whole_QD = model.encode_text(*encoder.inputs.tokenizer(texts, 77)).pooled
    torch.testing.assert_close(alone_QD, torch.nn.functional.normalize(whole_QD, dim=1), atol=1e-5, rtol=0)
    assert alone_QD[0] @ alone_QD[1] < 0.999


def test_threads_do_not_disturb_each_other(searcher: Searcher):
    wrong: list[str] = []

    def ask(colour: str) -> None:
        for _ in range(30):
            if searcher.by_texts([colour], 1)[0][0].name != f"{colour}.png":
                wrong.append(colour)

    threads = [threading.Thread(target=ask, args=(colour,)) for colour in COLOURS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_and_contact_sheet(searcher: Searcher, tmp_path: Path):
    hits = searcher.by_texts(["red"], 3)[0]
    image = tmp_path / "query.png"
    paint(image, "red")
    answers = [Answer("red / ../..", None, hits), Answer(str(image), image, hits), Answer("ünï" * 50, None, hits)]
    out = tmp_path / "new" / "out"
    sheets = write_answers(out, searcher, answers)
    assert [sheet.name for sheet in sheets] == ["001_red.jpg", "002_query.jpg", f"003_{('ünï' * 50)[:40]}.jpg"]
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    assert lines[0] == {
        "query": "red / ../..",
        "rank": 1,
        "score": pytest.approx(hits[0].score, abs=1e-6),
        "path": str(searcher.gallery / "red.png"),
    }
    assert lines[3]["image"] == str(image) and "query" not in lines[3]
    with Image.open(sheets[0]) as sheet:
        colours = sheet.getcolors(1 << 24)
    for colour in COLOURS.values():  # each photo is on it
        near = sum(count for count, found in colours if max(abs(a - b) for a, b in zip(found, colour, strict=True)) < 8)
        assert near > 10_000


def test_a_photo_that_is_gone_has_its_place_on_the_sheet(searcher: Searcher, tmp_path: Path):
    hits = searcher.by_texts(["red"], 3)[0]
    strange = hits[0]._replace(name=os.fsdecode(b"caf\xe9\n/") + "long/" * 60 + "photo.jpg")

    def size(name: str, hits: list[PhotoHit]) -> tuple[int, int]:
        (sheet,) = write_answers(tmp_path / name, searcher, [Answer("red", None, hits)])
        return Image.open(sheet).size

    whole = size("whole", hits)
    (searcher.gallery / "red.png").unlink()
    assert size("gone", hits) == size("strange", [strange, *hits[1:]]) == whole
    assert size("none", [])[1] < whole[1]


def test_a_blocked_output_folder_is_named(searcher: Searcher, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output .*file/out: cannot be written"):
        write_answers(tmp_path / "file" / "out", searcher, [])
    with pytest.raises(ValueError, match="--export .*file/out: cannot be written"):
        export(tmp_path / "file" / "out", IndexedPhotos([], unit_rows(1), np.arange(1), 0), {})


def test_export(tmp_path: Path):
    vectors_ND = unit_rows(4)
    names = ["a.jpg", "b/ü.jpg", "c\n.jpg", "d.jpg"]
    export(tmp_path / "out", IndexedPhotos(names, vectors_ND, np.arange(4), 0), {"precision": "float32"})
    assert np.array_equal(np.load(tmp_path / "out" / "vectors.npy", mmap_mode="r", allow_pickle=False), vectors_ND)
    lines = [json.loads(line) for line in (tmp_path / "out" / "photos.jsonl").read_text().splitlines()]
    assert lines == [{"row": row, "path": name} for row, name in enumerate(names)]
    assert json.loads((tmp_path / "out" / "about.json").read_text()) == {"precision": "float32"}


def test_queries_from_a_file(tmp_path: Path):
    path = tmp_path / "queries.txt"
    path.write_text("one\r\n\n  two  \n", encoding="utf-8")
    assert QueryOptions(query="zero", queries=path).texts() == ["zero", "one", "two"]
    assert QueryOptions().texts() == []
    for content, message in ((b"\n \n", "no line"), (b"caf\xe9", "not UTF-8"), (None, "cannot be read")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=f"--queries .*queries.txt: .*{message}"):
            QueryOptions(queries=path).texts()
    with pytest.raises(ValueError, match="--query: empty"):
        QueryOptions(query="  ")


def test_paths_that_cannot_be_printed():
    assert printable("caf\udce9\n.jpg") == "caf\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.jpg"
    assert printable("ünï 漢字.jpg") == "ünï 漢字.jpg"


def test_sentences_that_wait_are_answered_together_each_with_its_own(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
):
    real, batches, first = searcher.encoder.encode_text, [], threading.Event()

    def texts(some: list[str]) -> torch.Tensor:
        batches.append(len(some))
        if len(batches) == 1:
            first.wait(10)
        return real(some, progress=False)

    monkeypatch.setattr(FeatureEncoder, "encode_text", lambda self, some, **_: texts(some))
    colours, found = ["red", "green", "blue"] * 4, {}

    def ask(number: int) -> None:
        found[number] = searcher.by_text(colours[number], 1 + number % 3)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    while len(searcher._queue) < 11:
        pass
    first.set()
    for thread in threads:
        thread.join()
    assert batches == [1, 8, 3]
    for number, colour in enumerate(colours):
        assert len(found[number]) == 1 + number % 3 and found[number][0].name == f"{colour}.png"


def test_an_error_reaches_everyone_who_waited(searcher: Searcher, monkeypatch: pytest.MonkeyPatch):
    def texts(*_: object, **__: object) -> np.ndarray:
        raise RuntimeError("broken")

    monkeypatch.setattr(FeatureEncoder, "encode_text", texts)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            searcher.by_text("red", 1)
    monkeypatch.undo()
    assert searcher.by_text("red", 1)[0].name == "red.png"
