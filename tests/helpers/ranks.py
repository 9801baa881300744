"""What two processes do together, in one pair that is started once.

    python -m tests.helpers.ranks FOLDER DATA_ROOT ONE

ONE is a run directory of one process. Writes to FOLDER: differences.json, how steps in two processes differ from those
in one; 0.pth and 1.pth, what must be alike in both; 0.json and 1.json, how their runs of the scripts ended; these runs.

Shape letters: B pairs of a batch, L text length.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import test
import train
from model.backbones import BackboneOptions, load_backbone
from model.build import build_retriever
from model.losses.base import PairFeatures, TrainingPass
from model.retriever import Retriever
from processor.trainer import Trainer
from tests.helpers.runs import SMALL
from utils.distributed import across_processes, rank, world_size

SYSTEMS = {
    "irra": ["--loss_names", "sdm+mlm+id"],
    "dgcmia": ["--loss_names", "itc+itc1+cons+memory_soft", "--id_threshod", "0.3"],
    "php": ["--loss_names", "sdm+itc+aux", "--moe_layers", "2"],
    "eccl": [
        "--loss_names",
        "TAL+memory+instance_memory",
        "--num_context",
        "2",
        "--prompt_depth",
        "2",
        "--lora_r",
        "2",
    ],
    "iclf": ["--loss_names", "itc+mlm+itm+id", "--cmt_depth", "1"],
    "rde": ["--loss_names", "TAL", "--select_ratio", "0.3", "--accumulate", "2"],
    "rde, statistics of the batch": ["--loss_names", "sdm", "--select_ratio", "0.3", "--tse_norm", "batch"],
    "tbps_clip": ["--loss_names", "nitc+ritc+citc+ss", "--mvs_image", "--scale_clamp", "parameter"],
    "unused": ["--loss_names", "cmpm+aux", "--moe_layers", "2", "--php_variant", "efp"],
    "hard": ["--loss_names", "memory+instance_memory", "--use_hard"],
}
"""flags by name: the published systems, one with parameters that no loss reaches, and the other update of the banks"""
FLAGS = [*SMALL, "--batch_size", "14", "--img_aug", "--loss_names", "sdm+id+itm", "--precision", "fp32"]
"""of the runs; the last of their batches cannot be shared alike"""
STEPS = {"alike": [0, 6, 12], "uneven": [0, 5, 11], "empty": [0, 0, 7]}
"""where the shares of two processes begin in the batch of each step, and where the last one ends"""
PAIRS, IDS, IMAGES = 24, 9, 12


def build(flags: list[str]) -> Retriever:
    """A small model in training mode, with filled banks and without dropout, which no two processes share."""
    torch.manual_seed(0)
    options = train.read_flags(["--pretrain_choice", "tiny", "--img_size", "32", "32", *flags])
    backbone = load_backbone(options.get(BackboneOptions))
    model = build_retriever(backbone, options.get, IDS, IMAGES, PAIRS)
    features = torch.randn(2, PAIRS, backbone.spec.embed_dim)
    pairs = PairFeatures(*features, torch.arange(PAIRS) % IDS, torch.arange(PAIRS) // 2)
    bounds = [PAIRS * part // world_size() for part in range(world_size() + 1)]
    visited = [share_of(whole_batch(0, PAIRS), bounds)]
    model.before_epoch(TrainingPass(1, lambda: pairs, lambda fields, plain: visited))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


def whole_batch(number: int, size: int) -> dict[str, Tensor]:
    """Every field that the systems read."""
    draw = torch.Generator().manual_seed(number)
    index = torch.randperm(PAIRS, generator=draw)[:size]
    captions = torch.zeros(3, size, 77, dtype=torch.int64)
    captions[:, :, :12] = torch.randint(1, 49405, (3, size, 12), generator=draw)
    captions[:, :, 0], captions[:, :, 12] = 49406, 49407
    labels = torch.zeros(size, 77, dtype=torch.int64)
    labels[torch.arange(size), 1 + torch.arange(size) % 5] = 7
    labels[0, 2:6] = 9
    lengths = torch.full((size,), 13)
    return {
        "images": torch.randn(size, 3, 32, 32, generator=draw),
        "images_aug": torch.randn(size, 3, 32, 32, generator=draw),
        "caption_ids": captions[0],
        "caption_ids_lengths": lengths,
        "caption_ids_aug": captions[1],
        "caption_ids_aug_lengths": lengths.clone(),
        "mlm_ids": captions[2],
        "mlm_ids_lengths": lengths.clone(),
        "mlm_labels": labels,
        "pids": index % IDS,
        "image_ids": index // 2,
        "index": index,
        **{name: torch.randn(size, 3, 32, 32, generator=draw) for name in ("images_mvs", "images_ss1", "images_ss2")},
    }


def share_of(batch: dict[str, Tensor], bounds: list[int]) -> dict[str, Tensor]:
    """This process's share of a batch, as the loader makes it."""
    own = slice(bounds[rank()], bounds[rank() + 1]) if world_size() > 1 else slice(None)
    share = {name: value[own] for name, value in batch.items()}
    share["mlm_positions"] = share["mlm_labels"].flatten().nonzero().squeeze(1)
    return share | {"share_bounds": torch.tensor(bounds)}


def steps(flags: list[str]) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Scalars, gradients, and buffers after the update, of each of :data:`STEPS`; the weights change in between."""
    model = build(flags)
    forward = across_processes(model)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-3)
    torch.manual_seed(1)
    seen = {}
    for number, (name, bounds) in enumerate(STEPS.items()):
        step, views = forward(share_of(whole_batch(number, bounds[-1]), bounds), epoch=1 + number)
        optimizer.zero_grad()
        step.loss.backward()
        model.after_step(views)
        grads = {key: value.grad.clone() for key, value in trained.items() if value.grad is not None}
        buffers = {key: value.clone() for key, value in model.named_buffers()}
        seen[name] = {"scalars": step.report, "grads": grads, "buffers": buffers}
        optimizer.step()
    return seen


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    """Norm of each tensor's difference, as a share of its norm; infinite where one of the two lacks it."""
    shares = dict.fromkeys(one.keys() ^ other.keys(), float("inf"))
    for name in one.keys() & other.keys():
        a, b = one[name].double(), other[name].double()
        shares[name] = ((a - b).norm() / a.norm().clamp(min=1e-6)).item()
    return shares


def signalled(function: Callable, *args: object) -> Any:
    """A step of the trainer, after the second of which the second process alone is asked to stop."""
    done = function(*args)
    signalled.steps += 1
    if signalled.steps == 2 and rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return done


def ending(script: Callable, *args: object) -> str:
    """How a script ends."""
    try:
        script([str(arg) for arg in args])
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return "well"


def runs(folder: Path, data_root: Path, one: Path) -> dict[str, str]:
    """Train, stop, resume, test and fail as pairs; how each of these ended."""
    ends, small = {}, [*FLAGS, "--root_dir", data_root]
    trainer_step, signalled.steps = Trainer.step, 0
    Trainer.step = partialmethod(partial(signalled, trainer_step))
    ends["stopped"] = ending(train.main, *small, "--run_dir", folder / "stopped")
    Trainer.step = trainer_step
    if rank() == 0:
        shutil.copytree(folder / "stopped", folder / "two")
        shutil.copytree(one, folder / "longer")
    dist.barrier()
    ends["resumed"] = ending(train.main, "--resume", "--resume_ckpt_file", folder / "two" / "last.pth")
    longer = folder / "longer" / "last.pth"
    ends["longer"] = ending(train.main, "--resume", "--resume_ckpt_file", longer, "--num_epoch", 3)
    config = ["--config_file", folder / "longer" / "configs.yaml", "--checkpoint", longer]
    ends["tested"] = ending(test.main, *config, "--i2t", "--test_batch_size", "7")
    ends["reranked"] = ending(test.main, *config, "--rerank", "3")
    ends["no data"] = ending(train.main, *small, "--root_dir", folder / "nowhere", "--run_dir", folder / "none")
    ends["no share"] = ending(train.main, *small, "--batch_size", "9", "--run_dir", folder / "none")
    ends["leak"] = ending(train.main, *small, "--loss_names", "itc+aux", "--php_attention", "batch")
    ends["diverged"] = ending(
        train.main, *small, "--run_dir", folder / "nan", "--lr", "1e30", "--optimizer", "SGD", "--warmup_epochs", "0"
    )
    return ends


def _process(number: int, folder: Path, data_root: Path, one: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    (folder / f"{number}.json").write_text(json.dumps(runs(folder, data_root, one), indent=1))
    torch.set_default_dtype(torch.float64)  # in which rounding cannot be mistaken for a fault, nor a fault for rounding
    Tensor.float = Tensor.double
    together = {system: steps(flags) for system, flags in SYSTEMS.items()}
    alike = {f"{s}/{name}": step["scalars"] | step["buffers"] for s in together for name, step in together[s].items()}
    torch.save(alike, folder / f"{number}.pth")
    dist.destroy_process_group()
    if number == 0:
        differences = {}
        for system, flags in SYSTEMS.items():
            for name, alone in steps(flags).items():
                for kind, tensors in alone.items():
                    differences[f"{system}/{name}/{kind}"] = difference(tensors, together[system][name][kind])
        (folder / "differences.json").write_text(json.dumps(differences, indent=1))


if __name__ == "__main__":
    mp.start_processes(_process, tuple(map(Path, sys.argv[1:])), nprocs=2, start_method="fork")
