"""Training in processes that a test can kill, forked from a server that has imported everything already."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import datasets.images.cache
import processor.run_dir.run_dir
import processor.trainer
import train as train_script
from datasets.images.decode import load_resized
from model.backbones.clip_tokenizer import shared_tokenizer
from processor.run_dir.checkpoint import write_checkpoint
from tests.helpers.runs import SMALL
from utils.command import run_command

shared_tokenizer()  # in the server, too, so that its children need not make it
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.helpers.children", "torch.utils.tensorboard", "torch._dynamo"])

SYSTEMS = {
    "IRRA": "--loss_names sdm+mlm+id --img_aug",
    "DGCMIA": "--loss_names itc+itc1+cons+memory_soft --id_threshod -0.9",
    "PHP": "--loss_names sdm+itc+aux --cnum 3 --moe_layers 1 --moe_heads 2 --reduction 2 --img_aug",
    "ECCL": "--loss_names TAL+memory+instance_memory --lora_alpha 4 --prompt_depth 2 --img_aug",
    "ICLF": "--loss_names itc+mlm+itm+id --img_aug",
}


def kill_self() -> None:
    """As if the system had done it: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def child(
    argv: list[str], said: Path, dies: tuple[str, int] | None, stepping: object, slow_images: bool, terminal: str
) -> None:
    """One part of a run, as ``python train.py ARGV``.

    Args:
        argv: flags.
        said: where its output goes.
        dies: "step" or "write", and before which of them it is killed.
        stepping: an event to set at the first step.
        slow_images: whether it takes long to read an image.
        terminal: a terminal that becomes its own, and takes its output.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell starts "pytest &" with SIGINT ignored
        signal.signal(number, signal.SIG_DFL)
    sys.argv = ["train.py", *argv]
    if terminal:
        _move_to(terminal)
    else:
        os.setpgid(0, 0)  # a group, as a shell gives to a command, so that Ctrl-C can be sent to it
        sys.stdout = sys.stderr = said.open("a", buffering=1)
    left = {"step": -1, "write": -1} | dict([dies] if dies else [])

    def counted(name: str, function: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            left[name] -= 1
            if left[name] == 0:
                kill_self()
            if name == "step":
                stepping.set()
            return function(*args, **kwargs)

        return call

    processor.trainer.Trainer.step = counted("step", processor.trainer.Trainer.step)
    processor.run_dir.run_dir.write_checkpoint = counted("write", write_checkpoint)
    if slow_images:
        datasets.images.cache.load_resized = lambda path, size: time.sleep(0.05) or load_resized(path, size)
    run_command(train_script.main, argv)


def _move_to(terminal: str) -> None:
    os.setsid()
    number = os.open(terminal, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(number, standard)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))


def start(
    argv: list[str],
    said: Path,
    dies: tuple[str, int] | None = None,
    slow_images: bool = False,
    terminal: str = "",
) -> tuple[object, object]:
    stepping = CONTEXT.Event()
    process = CONTEXT.Process(target=child, args=(argv, said, dies, stepping, slow_images, terminal))
    process.start()
    return process, stepping


def finish(argv: list[str], said: Path, dies: tuple[str, int] | None = None) -> int:
    process, _ = start(argv, said, dies)
    process.join(120)
    assert process.exitcode is not None, said.read_text()
    return process.exitcode


def resume(run_dir: Path) -> list[str]:
    return ["--resume", "--resume_ckpt_file", str(run_dir)]


def flags_of(system: str, data_root: Path, run_dir: Path, *more: str) -> list[str]:
    return [*SMALL, *SYSTEMS[system].split(), "--root_dir", str(data_root), "--run_dir", str(run_dir), *more]
