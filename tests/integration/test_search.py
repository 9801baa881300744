"""search.py as users run it, on small real data."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import search as search_script
from datasets.augmentation.pixels import normalise
from datasets.images.decode import load_resized
from model.backbones.spec import BackboneOptions
from model.checkpoints.restore import restore
from tests.helpers.runs import python

QUERY = "a woman in a red coat with a white handbag"


@pytest.fixture(scope="module")
def photos(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 photos in two folders, one broken photo, and a text file."""
    gallery = tmp_path_factory.mktemp("photos")
    for number, path in enumerate(sorted((data_root / "CUHK-PEDES" / "imgs").rglob("*.jpg"))[:20]):
        folder = gallery / ("left" if number % 2 else "right")
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder / f"{number}.jpg")
    (gallery / "broken.jpg").write_bytes(b"broken")
    (gallery / "notes.txt").write_text("")
    return gallery


def run(trained: Path, gallery: Path, capsys: pytest.CaptureFixture[str], *more: object) -> tuple[str, str]:
    """What search.py prints and warns of."""
    capsys.readouterr()
    flags = ["--config_file", trained / "configs.yaml", "--gallery", gallery, *more]
    search_script.main([str(flag) for flag in flags])
    captured = capsys.readouterr()
    return captured.out, captured.err


def ranked(text: str) -> list[tuple[float, str]]:
    return [(float(score), path) for score, path in re.findall(r"^ +\d+  (-?[\d.]+)  (.*)$", text, re.M)]


def naive(trained: Path, gallery: Path, text: str) -> list[tuple[float, str]]:
    """Cosines one by one, best first, from the parts that test.py uses."""
    backbone = BackboneOptions("tiny", (64, 32))
    model = restore(trained / "best.pth", lambda kind: backbone if kind is BackboneOptions else kind()).model
    inputs = model.input_format(77)
    with torch.inference_mode():
        query = model.encode_text(*inputs.tokenizer([text], 77)).pooled[0]
        scores = []
        for path in gallery.rglob("*.jpg"):
            if path.name != "broken.jpg":
                pixels = torch.from_numpy(load_resized(path, (64, 32)))[None]
                feature = model.encode_image(normalise(pixels, inputs.pixel_mean, inputs.pixel_std)).pooled[0]
                scores.append((torch.cosine_similarity(query, feature, dim=0).item(), str(path)))
    return sorted(scores, reverse=True)


def test_the_command_of_the_readme(trained: Path, photos: Path, tmp_path: Path):
    flags = ["--config_file", trained / "configs.yaml", "--gallery", photos, "--query", QUERY, "-k", "5"]
    flags += ["--precision", "fp32", "--index_dir", tmp_path / "index", "--output", tmp_path / "out"]
    done = python("search.py", *flags)
    assert done.returncode == 0, done.stderr
    expected = naive(trained, photos, QUERY)[:5]
    assert [path for _, path in ranked(done.stdout)] == [path for _, path in expected]
    assert [score for score, _ in ranked(done.stdout)] == pytest.approx([score for score, _ in expected], abs=1e-3)
    assert "21 photos, 1 other files" in done.stdout
    assert "1 photos cannot be read" in done.stderr and "broken.jpg: not an image" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr and "indexing:" not in done.stderr  # no colours, no bars
    assert done.stdout.splitlines()[-1].startswith("look around in a browser: python search.py")
    sheet = tmp_path / "out" / f"001_{QUERY.replace(' ', '_')[:40]}.jpg"
    assert str(sheet) in done.stdout and sheet.stat().st_size > 10_000
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [path for _, path in expected]


def test_photos_come_and_go(trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gallery = tmp_path / "gallery"
    shutil.copytree(photos, gallery)
    index = ["--index_dir", tmp_path / "index", "--output", tmp_path / "out"]
    assert "21 photos to encode, 0 changed or gone" in run(trained, gallery, capsys, *index)[0]
    assert "1 photos to encode, 0 changed or gone" in run(trained, gallery, capsys, *index)[0]
    (gallery / "left" / "1.jpg").rename(gallery / "moved.jpg")
    shutil.copy(photos / "right" / "2.jpg", gallery / "right" / "0.jpg")
    (gallery / "broken.jpg").unlink()
    before = run(trained, gallery, capsys, *index, "--no_update", "--query", QUERY, "-k", 100)[0]
    assert str(gallery / "left" / "1.jpg") in before and "moved.jpg" not in before
    after = run(trained, gallery, capsys, *index, "--query", QUERY, "-k", 100)[0]
    assert "2 photos to encode, 2 changed or gone" in after
    assert {path for _, path in ranked(after)} == {str(path) for path in gallery.rglob("*.jpg")}
    scores = {path: score for score, path in ranked(after)}
    assert scores[str(gallery / "right" / "0.jpg")] == scores[str(gallery / "right" / "2.jpg")]


def test_other_weights_or_sizes_never_use_the_same_index(trained: Path, photos: Path, tmp_path: Path, capsys):
    flags = ["--index_dir", tmp_path, "--precision", "fp32"]
    for more in ([], ["--checkpoint", trained / "last.pth"], ["--precision", "bf16"], ["--stride_size", "16"]):
        assert "21 photos to encode" in run(trained, photos, capsys, *flags, *more)[0]
    assert len(list(tmp_path.iterdir())) == 4


def test_queries_of_every_kind(trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "queries.txt").write_text(f"{QUERY}\n\na man\n" + "very " * 100 + "long\n")
    flags = ["--index_dir", tmp_path / "index", "--output", tmp_path / "out", "-k", 4]
    flags += ["--query_image", photos / "left" / "3.jpg", "--queries", tmp_path / "queries.txt"]
    exact, said = run(trained, photos, capsys, *flags)
    assert "query truncated from 101 to 75 tokens" in said
    found = ranked(exact)
    assert len(found) == 16
    assert found[12] == (1.0, str(photos / "left" / "3.jpg"))
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 4
    listed, _ = run(trained, photos, capsys, *flags, "--index", "ivf")
    assert ranked(listed) == found
    assert list((tmp_path / "index").glob("*/lists.npz"))


def test_export(trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(trained, photos, capsys, "--index_dir", tmp_path / "index", "--export", tmp_path / "out", "--precision", "fp32")
    vectors_ND = np.load(tmp_path / "out" / "vectors.npy", allow_pickle=False)
    paths = [json.loads(line)["path"] for line in (tmp_path / "out" / "photos.jsonl").read_text().splitlines()]
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert vectors_ND.shape == (20, 64) and len(paths) == 20 and about["img_size"] == [64, 32]
    backbone = BackboneOptions("tiny", (64, 32))
    model = restore(trained / "best.pth", lambda kind: backbone if kind is BackboneOptions else kind()).model
    with torch.inference_mode():
        pixels = torch.from_numpy(load_resized(photos / paths[7], (64, 32)))[None]
        spec = model.backbone.spec
        encoded = model.encode_image(normalise(pixels, spec.pixel_mean, spec.pixel_std))
        expected = torch.nn.functional.normalize(encoded.pooled, dim=1)[0]
    np.testing.assert_allclose(vectors_ND[7], expected.numpy(), atol=1e-5)


def test_default_places(trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir)
    run(run_dir, photos, capsys, "--query", "a man")
    (index,) = (run_dir / "search" / "index").iterdir()
    assert index.name.startswith(photos.name)
    (out,) = (path for path in (run_dir / "search").iterdir() if path.name != "index")
    assert {path.name for path in out.iterdir()} == {"001_a_man.jpg", "results.jsonl"}


def test_wrong_usage(trained: Path, photos: Path, fails, tmp_path: Path):
    config = ["--config_file", trained / "configs.yaml"]
    assert "--config_file: say which run" in fails("search", "--gallery", photos)
    assert "--gallery: say which folder" in fails("search", *config)
    index = ["--index_dir", tmp_path / "index"]
    assert "no such folder" in fails("search", *config, *index, "--gallery", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "no photo to search" in fails("search", *config, *index, "--gallery", tmp_path / "empty")
    assert "no photo to search" in fails("search", *config, *index, "--gallery", photos, "--no_update")
    assert "-k 0: expected" in fails("search", *config, "--gallery", photos, "-k", "0")
    assert "no such file" in fails("search", *config, "--gallery", photos, "--query_image", tmp_path / "absent.jpg")
    assert "no such checkpoint" in fails("search", *config, "--gallery", photos, "--checkpoint", tmp_path / "no.pth")
    (tmp_path / "file").write_text("")
    blocked = fails("search", *config, "--gallery", photos, "--index_dir", tmp_path / "file")
    assert "--index_dir: the index" in blocked and "cannot be written (Not a directory); choose another" in blocked
    bad_image = ["--query_image", photos / "broken.jpg", "--output", tmp_path / "out"]
    assert "broken.jpg: not an image" in fails("search", *config, *index, "--gallery", photos, *bad_image)


def test_a_damaged_index_says_what_to_do(trained: Path, photos: Path, fails, tmp_path: Path, capsys):
    run(trained, photos, capsys, "--index_dir", tmp_path)
    (index,) = tmp_path.iterdir()
    os.truncate(next(index.glob("vectors-*")), 100)
    flags = ["--config_file", trained / "configs.yaml", "--gallery", photos, "--index_dir", tmp_path]
    assert "delete this folder and search again" in fails("search", *flags, "--no_update", "--query", "a man")
