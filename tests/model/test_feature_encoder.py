"""``load_run``: the features of evaluation, from five lines."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import test as test_script
from analysis.evaluated_run import load_split
from datasets.images.decode import ImageError
from model import feature_encoder, load_run
from model.checkpoints.restore import restore
from model.feature_encoder import FeatureEncoder
from processor.evaluator import encode_split
from tests.helpers.random_run import random_run
from tests.helpers.runs import ROOT
from utils import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("api") / "run", text_length=20)


@pytest.fixture(scope="module")
def encoder(run: Path) -> FeatureEncoder:
    return load_run(run, device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three photos of noise."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (90, 40, 3), np.uint8)).save(path)
    return paths


def test_features_are_those_of_evaluation(trained: Path, caplog: pytest.LogCaptureFixture, capfd):
    options = test_script.read_flags(["--config_file", str(trained / "configs.yaml")])
    model = restore(trained / "best.pth", options.get).model
    _, split = load_split(options, model, "test")
    expected = encode_split(model, split)
    capfd.readouterr()
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        retriever = load_run(str(trained), device="cpu")
        image_ND = retriever.encode_image(split.paths, batch_size=3)
        text_ND = retriever.encode_text(split.captions, batch_size=5)
    assert not caplog.records
    assert not any(capfd.readouterr())
    for found, wanted in ((image_ND, expected.image_GD), (text_ND, expected.text_QD)):
        assert found.dtype == torch.float32 and found.device.type == "cpu"
        torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_a_bar_shows_where_it_is_wanted(
    progress: bool | None, shown: bool, encoder: FeatureEncoder, monkeypatch: pytest.MonkeyPatch, capfd
):
    """Here is no terminal, as in a notebook and in a job's log."""
    bar = feature_encoder.tqdm
    monkeypatch.setattr(feature_encoder, "tqdm", lambda delay, **kwargs: bar(**kwargs))
    encoder.encode_text(["a man"], progress=progress)
    assert ("encoding captions: 100%" in capfd.readouterr().err) == shown


def test_the_example_of_the_manual_runs(run: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.S)
    assert len(example.splitlines()) == 5
    folder = images[0].parent
    for path in images:
        Image.open(path).save(path.with_suffix(".jpg"))
    monkeypatch.chdir(folder)
    names = {}
    exec(example.replace('"RUN"', repr(str(run))), names)
    assert names["scores"].shape == names["positions"].shape == (1, 2)


def test_pil_images_and_single_items(encoder: FeatureEncoder, images: list[Path], tmp_path: Path):
    from_files = encoder.encode_image(images)
    pictures = [Image.open(path) for path in images]
    assert torch.equal(encoder.encode_image(pictures), from_files)
    assert torch.equal(encoder.encode_image(iter([str(path) for path in images])), from_files)
    torch.testing.assert_close(encoder.encode_image(images[1]), from_files[1:2])
    torch.testing.assert_close(encoder.encode_text("a man"), encoder.encode_text(["a man", "a woman in red"])[:1])
    upright = Image.open(images[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        torch.testing.assert_close(encoder.encode_image([turned]), from_files[:1])
        assert turned.size == (90, 40), "the caller's image is left as it was"
    grey = pictures[0].convert("LA")
    assert torch.equal(encoder.encode_image([grey]), encoder.encode_image([grey.convert("RGB")]))


def test_rank_against_a_naive_loop(encoder: FeatureEncoder, monkeypatch: pytest.MonkeyPatch):
    captions = ["a man", "a woman in a red coat", "two bags"]
    image_GD = torch.nn.functional.normalize(torch.randn(7, 64), dim=1)
    image_GD[2] = image_GD[5] = 0  # equal to the last bit
    for at_once in (1, 1 << 24):
        monkeypatch.setattr("model.feature_encoder._SCORES_AT_ONCE", at_once)
        scores, positions = encoder.rank(captions, image_GD, k=4)
        for caption, row, order in zip(captions, scores, positions, strict=True):
            cosines = [float(encoder.encode_text([caption])[0] @ feature) for feature in image_GD]
            best = sorted(range(7), key=lambda g: (-round(cosines[g], 6), g))[:4]
            assert order.tolist() == best
            assert row.tolist() == pytest.approx([cosines[g] for g in best], abs=1e-6)
    assert encoder.rank(captions, image_GD, k=100).positions.shape == (3, 7)


def test_features_can_be_trained_on(encoder: FeatureEncoder):
    probe = torch.nn.Linear(64, 2)
    probe(encoder.encode_text(["a man"])).sum().backward()
    assert probe.weight.grad is not None


def test_a_published_run(run: Path, encoder: FeatureEncoder, tmp_path: Path):
    """Its names of weights, wrappers included, and its flags, among them a data set that is unknown here."""
    ours = torch.load(run / "best.pth", weights_only=True)["model"]
    names = {key: key.removeprefix("clip.").removeprefix("text.").replace("in_proj.", "in_proj_") for key in ours}
    published = {f"module.base_model.{names[key]}": value for key, value in ours.items()}
    torch.save({"model": published}, tmp_path / "best.pth")
    (tmp_path / "configs.yaml").write_text(
        "IMG_SIZE: null\nimg_size: !!python/tuple\n- 64\n- 32\nstride_size: 16\ntext_length: 20\nlocal_rank: 0\n"
        "dataset_name: Another-PEDES\nloss_names: sdm+foreign\nnum_epoch: 60\n"
    )
    assert torch.equal(load_run(tmp_path).encode_text("a man"), encoder.encode_text("a man"))


def test_bad_input(encoder: FeatureEncoder, run: Path, images: list[Path], tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ImageError, match="text.jpg: not an image in a supported format"):
        encoder.encode_image([*images, tmp_path / "text.jpg"])
    with pytest.raises(ImageError, match="F image of 2 x 3 pixels: floating-point greyscale"):
        encoder.encode_image([Image.new("F", (2, 3))])
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:3000])
    with pytest.raises(ImageError, match="PNG|RGB image of 40 x 90 pixels"):
        encoder.encode_image([Image.open(broken)])
    for call, message in (
        (lambda: encoder.encode_image([]), "no image to encode"),
        (lambda: encoder.encode_text([]), "no caption to encode"),
        (lambda: encoder.encode_text(["a"], batch_size=0), "batch_size=0: expected at least 1"),
        (lambda: encoder.rank(["a"], torch.zeros(2, 64), k=0), "k=0: ask for at least one"),
        (lambda: encoder.rank(["a"], torch.zeros(2, 63)), r"shape \(2, 63\): expected \(images, 64\)"),
        (lambda: load_run(tmp_path / "none"), "none: no such run directory"),
        (lambda: load_run(tmp_path), "no configs.yaml in it; name a run directory"),
        (lambda: load_run(run, "none.pth"), "none.pth: no such checkpoint"),
        (lambda: load_run(run, device="tpu"), "--device tpu"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    (tmp_path / "configs.yaml").write_text("img_size: [64, 32]\ntext_length: many\n")
    with pytest.raises(UserError, match="configs.yaml: --text_length 'many': expected a whole number"):
        load_run(tmp_path)
    (tmp_path / "configs.yaml").write_text("img_size: [64, 32]\n")
    with pytest.raises(UserError, match="best.pth: no such checkpoint"):
        load_run(tmp_path)
    (tmp_path / "configs.yaml").unlink()
    (tmp_path / "model.safetensors").write_text("no weights")
    with pytest.raises(UserError, match="model.safetensors: damaged safetensors file, or something else"):
        load_run(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="model.safetensors: holds no flags of a run; name a run directory"):
        load_run(tmp_path)
