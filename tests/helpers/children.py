"""Training in processes that a test can kill, forked from one that has imported everything, the project included."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import datasets.images.cache
import processor.run_dir.run_dir
import processor.trainer
import train as train_script
from datasets.images.decode import load_resized
from model.backbones.clip_tokenizer import shared_tokenizer
from processor.run_dir.checkpoint import write_checkpoint
from tests.helpers.fork_server import ROOT, Forked
from tests.helpers.runs import SMALL
from utils.command import run_command

shared_tokenizer()  # in the server, too, so that its children need not make it

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


def child(argv: list[str], stepping: str, dies: tuple[str, int] | None, slow_images: bool) -> None:
    """One part of a run, as ``python train.py ARGV``.

    Args:
        argv: flags.
        stepping: a file to make at the first step.
        dies: "step" or "write", and before which of them it is killed.
        slow_images: whether it takes long to read an image.
    """
    sys.argv = ["train.py", *argv]
    left = {"step": -1, "write": -1} | dict([dies] if dies else [])

    def counted(name: str, function: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            left[name] -= 1
            if left[name] == 0:
                kill_self()
            if name == "step":
                Path(stepping).touch()
            return function(*args, **kwargs)

        return call

    processor.trainer.Trainer.step = counted("step", processor.trainer.Trainer.step)
    processor.run_dir.run_dir.write_checkpoint = counted("write", write_checkpoint)
    if slow_images:
        datasets.images.cache.load_resized = lambda path, size: time.sleep(0.05) or load_resized(path, size)
    run_command(train_script.main, argv)


class Child(Forked):
    """A process with the interface of :class:`multiprocessing.Process`."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, or until the time is over."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout)

    @property
    def exitcode(self) -> int | None:
        """As :attr:`multiprocessing.Process.exitcode`."""
        return self.poll()


class Mark:
    """An event: a file that another process makes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wait(self, timeout: float) -> bool:
        """Until the file is there, or the time is over."""
        end = time.monotonic() + timeout
        while not self.path.exists() and time.monotonic() < end:
            time.sleep(0.002)
        return self.path.exists()


def start(
    argv: list[str], said: Path, dies: tuple[str, int] | None = None, slow_images: bool = False
) -> tuple[Child, Mark]:
    """:func:`child` in a process of its own, whose output is added to ``said``; the mark is made at its first step."""
    stepping = Mark(said.with_suffix(".stepping"))
    stepping.path.unlink(missing_ok=True)
    module = "tests.helpers.children"
    call = f"from {module} import child\nchild(*{(argv, str(stepping.path), dies, slow_images)!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with said.open("a") as output:
        return Child(["-c", call], ROOT, environment, output, imported=[module]), stepping


def finish(argv: list[str], said: Path, dies: tuple[str, int] | None = None) -> int:
    process, _ = start(argv, said, dies)
    process.join(120)
    assert process.exitcode is not None, said.read_text()
    return process.exitcode


def resume(run_dir: Path) -> list[str]:
    return ["--resume", "--resume_ckpt_file", str(run_dir)]


def flags_of(system: str, data_root: Path, run_dir: Path, *more: str) -> list[str]:
    return [*SMALL, *SYSTEMS[system].split(), "--root_dir", str(data_root), "--run_dir", str(run_dir), *more]
