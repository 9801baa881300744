"""ECCL from flags to tables on a few drawn figures: fine-tuning, banks, checkpoint, resuming, merged export."""

import logging
import re

import pytest
import torch

import test as test_script
import train

DATA = (  # noqa: SIM905
    "--dataset_name Mannequins --val_dataset val --num_workers 0 --mannequin_train_ids 12 --mannequin_val_ids 4 "
    "--mannequin_test_ids 6 --mannequin_images_per_id 2 --mannequin_height 64 --img_size 64 32"
).split()
MODEL = ["--pretrain_choice", "tiny", "--precision", "fp32", "--batch_size", "16", "--num_epoch", "1"]
# as in the published run.sh
ECCL = (  # noqa: SIM905
    "--lr 0.001 --loss_names TAL+memory+instance_memory --num_context 4 --prompt_depth 2 --lora_alpha 4 --temp 0.03 "
    "--temp_instance 0.015 --momentum 0.2 --instance_momentum 0.1 --margin 0.2 --lora_lr 0.001 --lamda1 1 --lamda2 0.1 "
    "--img_aug --word_deletion 0.1"
).split()


def table(folder):
    lines = (folder / "test_log.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("| t2i")][-1]


@pytest.mark.slow
def test_eccl_from_flags_to_tables(tmp_path):
    place = [*DATA, "--root_dir", str(tmp_path / "data"), *MODEL]
    start, run = tmp_path / "irra", tmp_path / "eccl"
    train.main([*place, "--loss_names", "sdm+id", "--run_dir", str(start)])
    train.main([*place, *ECCL, "--finetune", str(start / "best.pth"), "--run_dir", str(run)])
    log = (run / "train_log.txt").read_text()
    assert "used clip.text, clip.visual; not used: heads.id" in log
    assert re.search(r"memory banks filled from 48 training pairs", log)
    begun, last = (torch.load(folder / "last.pth", weights_only=True)["model"] for folder in (start, run))
    frozen = [key for key in begun if key.startswith("clip.")]
    assert frozen and all(torch.equal(begun[key], last[key]) for key in frozen)
    assert last["heads.instance_memory.row_pids"].tolist() == [pid for pid in range(12) for _ in range(2)]
    assert torch.allclose(last["heads.memory.bank.text"].norm(dim=1), torch.ones(12))
    assert "bank_momentum: 0.2\n" in (run / "configs.yaml").read_text()

    train.main(["--resume", "--resume_ckpt_file", str(run / "last.pth"), "--num_epoch", "2"])
    resumed = (run / "train_log.txt").read_text().removeprefix(log)
    assert "resumed in epoch 2" in resumed and "banks filled" not in resumed

    config = ["--config_file", str(run / "configs.yaml")]
    test_script.main([*config, "--export_merged", str(tmp_path / "merged.pth")])
    own = table(run)
    merged = torch.load(tmp_path / "merged.pth", weights_only=True)["model"]
    assert set(merged) - set(begun) == {key for key in last if key.startswith("clip.prompts.")}
    test_script.main([*config, "--checkpoint", str(tmp_path / "merged.pth")])
    assert table(run) == own
    logging.getLogger("descry").handlers.clear()
