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


def record(**changes: object) -> dict[str, object]:
    whole = {"id": 1, "captions": ["a man"], "split": "train", "file_path": "a.jpg", **changes}
    return {key: value for key, value in whole.items() if value is not None}


BAD = {
    "flags": [
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
        ("--noisy_rate 1.5", "--noisy_rate 1.5: expected at least 0 and at most 1"),
        ("--noisy_rate some", "--noisy_rate 'some': expected a number"),
        ("--noisy_seed 4294967296", "--noisy_seed 4294967296: expected at least 0 and at most 4294967295"),
        ("--noisy_file nowhere.npy", "--noisy_file nowhere.npy: no such file; with --noisy_rate R it is written"),
        ("--noisy_file .", "--noisy_file .: cannot be read (Is a directory)"),
        ("--temperature 0", "--temperature 0.0: expected a number above 0"),
        ("--masked_token_rate 0.95", "their sum is above 1"),
        ("--resume", "--resume: needs --resume_ckpt_file RUN/last.pth"),
        ("--pretrain_choice ViT-Z", "--pretrain_choice ViT-Z: neither a file nor one of ViT-B/16, ViT-B/32"),
        ("--learning_rate 1", "unrecognized arguments: --learning_rate 1"),
        ("--batch-size 8", "unrecognized arguments: --batch-size 8; did you mean --batch_size?"),
        ("--img_aug maybe", "--img_aug 'maybe': expected true or false"),
        ("--dataset_name ICFG-PEDES", "ICFG-PEDES"),
        ("--val_dataset val --dataset_name Custom", "reid_raw.json"),
        ("--resume_ckpt_file logs/run", "--resume_ckpt_file logs/run: has no effect without --resume"),
        ("--resume --resume_ckpt_file /nonexist", "--resume_ckpt_file /nonexist: no such file or folder"),
        ("--lora_r 100000", "--lora_r 100000: at most 64, the rank that a layer (attn.in_proj) of the towers can have"),
        ("--lora_r 65", "--lora_r 65: at most 64"),
        ("--cmt_depth 100000 --loss_names mlm", "--cmt_depth 100000: expected at least 1 and at most 100"),
        ("--num_experts 100000 --loss_names aux", "--num_experts 100000: expected"),
        ("--cnum 1000000 --loss_names aux", "--cnum 1000000: expected"),
        ("--img_size 100000 100000", "--img_size 100000 100000: expected at most 4096 pixels"),
        (
            "--seed 99999999999999999999",
            "--seed 99999999999999999999: expected at least 0 and at most 9223372036854775807",
        ),
        ("--seeds 1 99999999999999999999", "--seeds 99999999999999999999: expected at most"),
        ("--seed 010", "--seed '010': expected a whole number"),
        ("--batch_size 1_0", "--batch_size '1_0': expected a whole number"),
        ("--lr 1_0.5", "--lr '1_0.5': expected a number"),
        ("--device mps", "--device mps: expected auto, cpu, cuda or cuda:N"),
        ("--device meta", "--device meta: expected auto, cpu, cuda or cuda:N"),
    ],
    "yaml": [
        ("loss_nmaes: itc", "unknown flag 'loss_nmaes'; did you mean loss_names?"),
        ("lr: [1, 2]", "--lr [1, 2]: expected a number"),
        ("seed: 1\nlr: 1\nseed: 2", "key 'seed' is there twice, first in line 1"),
        ("seed: 1:30", "--seed '1:30': expected a whole number"),
        ("seed: 010", "--seed '010': expected a whole number"),
        ("seed: 0x10", "--seed '0x10': expected a whole number"),
        ("seed: 1_0", "--seed '1_0': expected a whole number"),
        ("seed: on", "--seed 'on': expected a whole number"),
        ("seed: true", "--seed True: expected a whole number"),
        ("lr: 1:30.5", "--lr '1:30.5': expected a number"),
        ("lr: .nan", "--lr nan: expected a number"),
        ("<<: {seed: 1}", "'<<' is not read"),
        ("- itc", "expected 'flag: value' lines"),
    ],
    "annotation": [
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
        ('[{"id": 1, "id": 2}]', "key 'id' is there twice in [('id', 1), ('id', 2)]; keep one of them"),
        (
            [record(), record(split="test")],
            "'a.jpg' is in test, and in train as record 0. Keep the image in one split.",
        ),
        (
            [
                record(),
                record(id=2, file_path="b.jpg"),
                *(record(id=n, split="val", file_path=f"{n}.png") for n in (2, 3)),
            ],
            "1 identity is in train and in val (2). Results would not be comparable",
        ),
    ],
}
"""what a user got wrong, and what the message must say; the next case is one line"""


@pytest.mark.parametrize(("kind", "wrong", "message"), [(kind, *case) for kind, cases in BAD.items() for case in cases])
def test_bad_input(root: Path, fails, kind: str, wrong: object, message: str):
    if kind == "flags":
        said = fails("train", *flags(root, *wrong.split()))
    elif kind == "yaml":
        (root.parent / "wrong.yaml").write_text(wrong)
        said = fails("train", *flags(root), "--config_file", root.parent / "wrong.yaml")
        assert f"--config_file {root.parent / 'wrong.yaml'}: " in said
    else:
        path = root / "CUHK-PEDES" / "reid_raw.json"
        path.unlink()
        if wrong is not None:
            path.write_text(wrong if isinstance(wrong, str) else json.dumps(wrong))
        said = fails("train", *flags(root))
        assert str(path.parent) in said
    assert message in said
    assert not (root.parent / "run").exists(), "a run that never began leaves nothing behind"


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
