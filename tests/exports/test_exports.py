"""Exports compute what the run computes, in programs that know nothing of this project; or are refused by name.

The programs take seconds to import and are imported by one test each.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import export as export_script
from datasets.augmentation.pixels import normalise
from datasets.images.decode import resize_picture
from exports import EXPORTS, open_clip
from exports.check import CAPTIONS, check_images
from exports.clip_towers import plain_clip
from exports.format import ExportedRun, ExportFormat, TargetProgram
from exports.transformers import square_table, table_side
from exports.write import write_export
from model import load_run
from model.adapters.lora import LoRAOptions
from model.feature_encoder import FeatureEncoder
from tests.helpers.random_run import random_run
from utils import UserError

CAPTION = "a man in a black jacket"
"""of every README that an export brings along"""


def export(run: Path, name: str, output: Path, *more: object) -> FeatureEncoder:
    """Export a run as a user does; gives our encoder of it."""
    flags = ["--config_file", run / "configs.yaml", "--format", name, "--output", output, *more]
    export_script.main([str(flag) for flag in flags])
    return load_run(run, device="cpu")


def write(encoder: FeatureEncoder, name: str, output: Path) -> None:
    write_export(ExportedRun(encoder, {}), name, output)


def run_readme(folder: Path) -> dict[str, Any]:
    """What the example in the README of an export computes, of the first image of the check."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {"image": check_images()[1]}
    with torch.no_grad():
        exec(code.replace("FOLDER", str(folder)), names)
    return names


def assert_features(encoder: FeatureEncoder, names: dict[str, Any]) -> None:
    """Those of the README's example are ours."""
    for ours, theirs in (
        (encoder.encode_image(check_images()[1]), names["image_features"]),
        (encoder.encode_text(CAPTION), names["text_features"]),
    ):
        theirs = nn.functional.normalize(torch.as_tensor(theirs), dim=1)
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


def evaluation_view(encoder: FeatureEncoder, image: Image.Image) -> torch.Tensor:
    form = encoder.inputs
    pixels_CHW = torch.from_numpy(resize_picture(image, form.image_size, form.resize_filter))
    return normalise(pixels_CHW[None], form.pixel_mean, form.pixel_std)[0]


def assert_pixels(encoder: FeatureEncoder, preprocess: Callable[[Image.Image], torch.Tensor], atol: float = 0) -> None:
    """Preprocessing is the evaluation view; the neighbouring grey level would be 0.015 away."""
    for image in check_images():
        torch.testing.assert_close(preprocess(image), evaluation_view(encoder, image), atol=atol, rtol=0)


def test_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = random_run(tmp_path / "run", (384, 128), text_length=20)
    encoder = export(run, "transformers", tmp_path / "out")
    said = capsys.readouterr()
    assert "largest difference of the features: images" in said.out
    assert not said.err
    names = run_readme(tmp_path / "out")
    assert_features(encoder, names)
    assert names["model"].config.vision_config.image_size == 384
    assert_pixels(encoder, lambda image: names["processor"](images=[image], return_tensors="pt")["pixel_values"][0])
    table = names["model"].vision_model.embeddings.interpolate_pos_encoding(torch.empty(1, 193, 64), 384, 128)
    assert torch.equal(table[0], encoder.model.backbone.visual.positional_embedding)
    ours = encoder.inputs.tokenizer(CAPTIONS, 20)
    theirs = names["tokenizer"](list(CAPTIONS), truncation=True)["input_ids"]
    assert theirs == [row[:length].tolist() for row, length in zip(ours.ids, ours.lengths, strict=True)]
    tokenizer = names["tokenizer"]
    assert tokenizer.decode(tokenizer("A man's coat").input_ids, skip_special_tokens=True) == "a man 's coat"
    from transformers import CLIPProcessor

    both = CLIPProcessor.from_pretrained(tmp_path / "out")(text=[CAPTION], images=[names["image"]], return_tensors="pt")
    assert both["pixel_values"].shape == (1, 3, 384, 128) and both["input_ids"].shape == (1, 8)


def test_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = random_run(tmp_path / "run")
    encoder = export(run, "open_clip", tmp_path / "out")
    names = run_readme(tmp_path / "out")
    assert_features(encoder, names)
    assert_pixels(encoder, names["preprocess"], atol=1e-6)
    gelu = load_run(run, device="cpu")
    for block in gelu.model.backbone.blocks():
        block.mlp.gelu = nn.GELU(approximate="tanh")
    write(gelu, "open_clip", tmp_path / "gelu")
    next(gelu.model.backbone.blocks()).mlp.gelu = nn.GELU()
    with pytest.raises(UserError, match=r"different activations \(gelu and gelu_tanh\)"):
        write(gelu, "open_clip", tmp_path / "refused")

    real = open_clip._config
    mistakes = {
        "GELU for QuickGELU": ("model_cfg", "quick_gelu", False),
        "another resize filter": ("preprocess_cfg", "interpolation", "bicubic"),
        "the aspect ratio is kept": ("preprocess_cfg", "resize_mode", "shortest"),
        "statistics of ImageNet": ("preprocess_cfg", "mean", [0.485, 0.456, 0.406]),
    }
    for mistake, (part, key, value) in mistakes.items():
        config = real(plain_clip(ExportedRun(encoder, {}), "open_clip"))
        config[part][key] = value
        monkeypatch.setattr(open_clip, "_config", lambda clip, config=config: config)
        with pytest.raises(UserError, match="--format open_clip: largest difference .* more than 1e-04"):
            write(encoder, "open_clip", tmp_path / "refused")
        assert not list(tmp_path.glob("*refused*")), mistake


def test_what_tbps_clip_prepares_otherwise(tmp_path: Path):
    flags = {"pixel_statistics": "imagenet", "eval_filter": "bicubic", "text_length": 20}
    run = random_run(tmp_path / "run", **flags)
    export(run, "open_clip", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["preprocess_cfg"]
    assert config["interpolation"] == "bicubic" and config["mean"] == [0.485, 0.456, 0.406]
    cleaning = random_run(tmp_path / "cleaning", clean_text=True)
    with pytest.raises(UserError, match="cannot express captions that are cleaned first"):
        write(load_run(cleaning, device="cpu"), "open_clip", tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_onnx_with_parsing_and_a_second_embedding(tmp_path: Path):
    flags = {"pixel_statistics": "imagenet", "eval_filter": "bicubic", "clean_text": True, "text_length": 30}
    run = random_run(tmp_path / "run", php_variant="full", select_ratio=0.4, **flags)
    encoder = export(run, "onnx", tmp_path / "out")
    names = run_readme(tmp_path / "out")
    assert_features(encoder, names)
    assert names["ids"].shape == (1, 30) and names["text_features"].shape == (1, 64 + 128)
    image, text = (names["onnxruntime"].InferenceSession(tmp_path / "out" / f"{n}.onnx") for n in ("image", "text"))
    assert [str(entry.shape[0]) for entry in (*image.get_inputs(), *text.get_inputs())] == ["N", "N"]
    pixels = np.stack([evaluation_view(encoder, picture).numpy() for picture in check_images()])
    (all_ND,) = image.run(["features"], {"pixels": pixels})
    (last_1D,) = image.run(["features"], {"pixels": pixels[-1:]})
    np.testing.assert_allclose(last_1D, all_ND[-1:], atol=1e-5)
    np.testing.assert_allclose(names["pixels"][0], pixels[1], atol=1e-6)


def test_safetensors(tmp_path: Path):
    """LoRA is merged, all else is kept, the flags travel in the file."""
    lora = LoRAOptions(lora_r=2, lora_alpha=6.0)
    run = random_run(
        tmp_path / "run", (48, 32), php_variant="efp", lora=lora, prompts=1, select_ratio=0.4, text_length=33, topk=1
    )
    encoder = export(run, "safetensors", tmp_path / "out")
    assert_features(encoder, run_readme(tmp_path / "out"))
    exported = load_run(tmp_path / "out")
    assert exported.inputs.text_length == 33
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert not any("lora" in key for key in file.keys())  # noqa: SIM118
        assert json.loads(file.metadata()["flags"])["topk"] == 1
    alone = load_run(run, tmp_path / "out" / "model.safetensors")
    assert torch.equal(alone.encode_text(CAPTION), exported.encode_text(CAPTION))


REFUSED = {
    "parsing": ({"php_variant": "crfm"}, "transformers", r"PHP's parsing \(crfm\); --format onnx can"),
    "parsing, open_clip": ({"php_variant": "full"}, "open_clip", r"PHP's parsing \(crfm and efp\)"),
    "second embedding": ({"select_ratio": 0.3}, "open_clip", r"RDE's second embedding \(--select_ratio\)"),
    "prompts": ({"prompts": 1}, "open_clip", r"learned prompts \(--prompt_depth\); --format onnx can"),
    "stride": ({"stride": 8}, "transformers", r"patches that overlap \(--stride_size 8\)"),
    "size": ({"image_size": (256, 128)}, "transformers", r"the image size 256 128: .*16 x 8.*odd multiple"),
    "batch": ({"php_variant": "full", "php_attention": "batch"}, "onnx", "--php_attention batch.*safetensors can"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_cannot_express_is_refused_by_name(case: str, tmp_path: Path, fails: Callable[..., str]):
    settings, name, message = REFUSED[case]
    run = random_run(tmp_path / "run", **settings)
    said = fails("export", "--config_file", run / "configs.yaml", "--format", name, "--output", tmp_path / "out")
    assert re.search(f"--format {name}: cannot express.*{message}", said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_other_weights_and_backbones_are_refused_by_name(tmp_path: Path):
    encoder = load_run(random_run(tmp_path / "run"))
    encoder.model.backbone.second = nn.Linear(2, 2)
    with pytest.raises(UserError, match="weights that are in neither tower, such as second.weight"):
        write(encoder, "transformers", tmp_path / "out")
    encoder.model.add_module("clip", nn.Module())
    encoder.model.clip.name, encoder.model.clip.prompts = "siglip", None
    with pytest.raises(UserError, match="--format open_clip: cannot express the backbone siglip"):
        write(encoder, "open_clip", tmp_path / "out")


def test_bad_input(tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    run = random_run(tmp_path / "run")
    config, out = run / "configs.yaml", tmp_path / "out"
    good = ("--config_file", config, "--format", "safetensors", "--output", out)
    assert "--config_file: say which run to export" in fails("export", *good[2:])
    assert "--format: say for which program" in fails("export", *good[:2], *good[4:])
    assert "--format 'pickle': choose one of transformers" in fails("export", *good, "--format", "pickle")
    assert "--output: say which folder" in fails("export", *good[:4])
    assert "no such file" in fails("export", "--config_file", tmp_path / "none.yaml", *good[2:])
    assert "none.pth: no such checkpoint" in fails("export", *good, "--checkpoint", tmp_path / "none.pth")
    text = tmp_path / "text.pth"
    text.write_text("not weights")
    assert "text.pth: not a checkpoint of plain tensors" in fails("export", *good, "--checkpoint", text)
    text.rename(tmp_path / "text.safetensors")
    named = tmp_path / "text.safetensors"
    assert "text.safetensors: damaged safetensors file" in fails("export", *good, "--checkpoint", named)
    torch.save({"resnet.conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert "other.pth: no trained towers in it" in fails("export", *good, "--checkpoint", tmp_path / "other.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert "no trained towers" in fails("export", *good, "--checkpoint", tmp_path / "x.safetensors")
    assert "does not fit the model" in fails("export", *good, "--img_size", "64", "64")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails("export", *good[:4], "--output", tmp_path / "file" / "out")
    assert not out.exists()
    out.mkdir()
    assert f"--output {out}: exists already" in fails("export", *good)
    assert not list(out.iterdir())
    monkeypatch.setattr("exports.write.find_spec", lambda name: None)
    wanted = "--format onnx: needs onnx and onnxscript and onnxruntime; see requirements/export.in"
    assert wanted in fails("export", *good[:2], "--format", "onnx", "--output", tmp_path / "new")


def test_features_that_are_not_finite_or_of_another_width_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = load_run(random_run(tmp_path / "run"))
    for width, value in ((64, float("nan")), (32, 0.0)):

        def constant(items: list[Any], width: int = width, value: float = value) -> torch.Tensor:
            return torch.full((len(items), width), value)

        wrong = ExportFormat(lambda run, folder: None, lambda folder: TargetProgram(constant, constant), (), "")
        monkeypatch.setitem(EXPORTS, "onnx", wrong)
        with pytest.raises(UserError, match="images inf, captions inf, more than"):
            write(encoder, "onnx", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("grid", "side"), [((24, 8), 24), ((14, 14), 14), ((20, 12), 60), ((16, 8), None), ((24, 12), None), ((7, 3), 21)]
)
def test_a_square_table_gives_the_stored_positions_back(grid: tuple[int, int], side: int | None):
    rows, columns = grid
    assert table_side(rows, columns) == side
    if side is None:
        return
    positions_PW = torch.randn(1 + rows * columns, 4)
    table_PW = square_table(positions_PW, grid, side)
    assert torch.equal(table_PW[0], positions_PW[0])
    table_1WSS = table_PW[1:].T.reshape(1, 4, side, side)
    resized = nn.functional.interpolate(table_1WSS, size=grid, mode="bicubic", align_corners=False)
    assert torch.equal(resized[0].flatten(1).T, positions_PW[1:])
    if grid == (24, 8):
        for column in range(8):
            for j in range(3):
                assert torch.equal(table_1WSS[0, :, :, 3 * column + j].T, positions_PW[1:].view(24, 8, 4)[:, column])
