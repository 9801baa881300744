"""Whatever a user gets wrong ends in one clear message before training starts, and in exit code 2."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import SMALL


@pytest.fixture
def root(data_root: Path, tmp_path: Path) -> Path:
    """A private copy of the CUHK-PEDES layout, to break."""
    shutil.copytree(data_root / "CUHK-PEDES", tmp_path / "data" / "CUHK-PEDES")
    return tmp_path / "data"


def flags(root: Path, *more: object) -> list[object]:
    return [*SMALL, "--loss_names", "itc", "--root_dir", root, "--run_dir", root.parent / "run", *more]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--loss_names sdm+nce", "no loss is called 'nce'; choose from itc, sdm"),
        ("--dataset_name CUHK", "--dataset_name 'CUHK': choose one of CUHK-PEDES, ICFG-PEDES, RSTPReid"),
        ("--img_size 384", "--img_size 384: expected height and width"),
        ("--img_size 384 128 3", "--img_size 384 128 3: expected height and width"),
        ("--img_size wide", "--img_size 'wide': expected a whole number"),
        ("--img_size 0 128", "--img_size 0 128: expected height and width"),
        ("--img_size 8 8", "--img_size 8 8: smaller than one patch of 16"),
        ("--stride_size 0", "--stride_size 0: expected at least 1"),
        ("--lr fast", "--lr 'fast': expected a number"),
        ("--lr -1", "--lr -1.0: expected a number above 0"),
        ("--num_epoch 0", "--num_epoch 0: expected at least 1"),
        ("--batch_size 2.5", "--batch_size '2.5': expected a whole number"),
        ("--batch_size 0", "--batch_size 0: expected at least 1"),
        ("--sampler identity --num_instance 3", "--batch_size 8 is not a multiple of --num_instance 3"),
        ("--precision fp16", "--precision fp16: needs a GPU"),
        ("--device tpu9", "--device tpu9: expected auto, cpu, cuda"),
        ("--device cuda:77", "--device cuda:77: this machine has"),
        (
            "--text_length 99",
            "--text_length 99: the text tower takes at most 77 tokens; --text_stretch linear or keep20",
        ),
        ("--text_length 249 --text_stretch keep20", "--text_length 249: --text_stretch keep20 makes at most 248"),
        ("--tokenizer t.json", "--tokenizer t.json: OpenAI's CLIP uses CLIP's own tokenizer; leave the flag out"),
        ("--pretrain_choice open_clip:ViT-B-16", "expected open_clip:NAME:FILE"),
        ("--pretrain_choice open_clip:ViT-Z:w.pt", "open_clip has no model ViT-Z; similar names are ViT-"),
        ("--pretrain_choice open_clip:ViT-B-16:w.pt", "w.pt is not there"),
        ("--temperature 0", "--temperature 0.0: expected a number above 0"),
        ("--masked_token_rate 0.95", "their sum is above 1"),
        ("--resume", "--resume: needs --resume_ckpt_file RUN/last.pth"),
        ("--pretrain_choice ViT-Z", "--pretrain_choice ViT-Z: neither a file nor one of ViT-B/16, ViT-B/32"),
        ("--learning_rate 1", "unrecognized arguments: --learning_rate 1"),
        ("--noisy_rate 1.5", "--noisy_rate 1.5: expected at least 0 and at most 1"),
        ("--noisy_rate some", "--noisy_rate 'some': expected a number"),
        ("--noisy_seed 4294967296", "--noisy_seed 4294967296: expected at least 0 and at most 4294967295"),
        ("--noisy_file nowhere.npy", "--noisy_file nowhere.npy: no such file; with --noisy_rate R it is written"),
        ("--noisy_file .", "--noisy_file .: cannot be read (Is a directory)"),
        ("--img_aug maybe", "--img_aug 'maybe': expected true or false"),
        ("--dataset_name ICFG-PEDES", "ICFG-PEDES"),
        ("--val_dataset val --dataset_name Custom", "reid_raw.json"),
    ],
)
def test_flags(root: Path, fails, wrong: str, message: str):
    assert message in fails("train", *flags(root, *wrong.split()))
    assert not (root.parent / "run").exists(), "a run that never began leaves nothing behind"


def record(**changes: object) -> dict[str, object]:
    whole = {"id": 1, "captions": ["a man"], "split": "train", "file_path": "a.jpg", **changes}
    return {key: value for key, value in whole.items() if value is not None}


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (None, "has no reid_raw.json; --root_dir must point to"),
        ("{", "reid_raw.json"),
        ('{"id": 1}', "list"),
        ([record(captions=None)], "captions"),
        ([record(split="dev")], "'dev'"),
        ([record(captions=[])], "without captions"),
        ([record(captions=["a man", "  "])], "empty caption"),
        ([record(), record(id=3, file_path="b.jpg")], "2"),
        ([record(), record()], "earlier record"),
        ([record(id="1")], "not a whole number"),
        ([record(file_path="../../etc/passwd")], "image path that is not usable"),
    ],
)
def test_annotations(root: Path, fails, annotation: object, message: str):
    path = root / "CUHK-PEDES" / "reid_raw.json"
    if annotation is None:
        path.unlink()
    else:
        path.write_text(annotation if isinstance(annotation, str) else json.dumps(annotation))
    said = fails("train", *flags(root))
    assert message in said
    assert "CUHK-PEDES" in said


def first_training_image(root: Path) -> Path:
    records = json.loads((root / "CUHK-PEDES" / "reid_raw.json").read_text())
    return root / "CUHK-PEDES" / "imgs" / next(r["file_path"] for r in records if r["split"] == "train")


@pytest.mark.parametrize("fault", ["missing", "empty", "torn"])
def test_images(root: Path, fails, fault: str, capsys):
    image = first_training_image(root)
    if fault == "missing":
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[: 0 if fault == "empty" else 200])
    assert str(image) in fails("train", *flags(root))
    import train

    train.main([str(flag) for flag in flags(root, "--bad_images", "skip", "--num_epoch", "1")])
    assert "left out 1 of 20 images" in capsys.readouterr().err


def test_output_directory(root: Path, fails, tmp_path: Path):
    (tmp_path / "file").write_text("")
    blocked = [*SMALL, "--root_dir", root, "--output_dir", tmp_path / "file" / "logs"]
    assert "cannot be written" in fails("train", *blocked)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pth").write_bytes(b"")
    assert "holds a run already; continue it with --resume" in fails("train", *flags(root))


def test_config_files(root: Path, fails, tmp_path: Path):
    config = tmp_path / "wrong.yaml"
    assert "wrong.yaml: no such file" in fails("train", "--config_file", config)
    config.write_text("loss_nmaes: itc\n")
    assert "unknown flag 'loss_nmaes'; did you mean loss_names?" in fails("train", "--config_file", config)
    config.write_text("lr: [1, 2]\n")
    assert "--lr [1, 2]: expected a number" in fails("train", "--config_file", config)
    config.write_text("x: !!python/object/apply:os.system ['touch descry_was_here']\n")
    assert "not plain yaml" in fails("train", "--config_file", config)
    config.write_text("- 1\n")
    assert "expected 'flag: value' lines" in fails("train", "--config_file", config)
    assert "say which run to test" in fails("test")


def test_checkpoints(trained: Path, fails, tmp_path: Path):
    config = ["--config_file", trained / "configs.yaml"]
    assert "none.pth: no such checkpoint" in fails("test", *config, "--checkpoint", tmp_path / "none.pth")
    torn = tmp_path / "torn.pth"
    torn.write_bytes((trained / "best.pth").read_bytes()[:5000])
    assert "torn.pth: " in fails("test", *config, "--checkpoint", torn)
    torch.save({"model": {"fc": torch.zeros(1)}}, tmp_path / "other.pth")
    assert "no trained towers in it" in fails("test", *config, "--checkpoint", tmp_path / "other.pth")
    state = torch.load(trained / "best.pth", weights_only=True)["model"]
    del state["clip.visual.ln_pre.weight"]
    torch.save({"model": state}, tmp_path / "lacking.pth")
    assert "does not fit the model" in fails("test", *config, "--checkpoint", tmp_path / "lacking.pth")
    assert "only a last.pth can be resumed" in fails("train", "--resume", "--resume_ckpt_file", trained / "best.pth")


def test_other_image_size_than_trained(trained: Path, fails):
    assert "does not fit the model" in fails(
        "test", "--config_file", trained / "configs.yaml", "--img_size", "96", "32"
    )
