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
    "RDE": "--loss_names TAL --select_ratio 0.3 --noisy_rate 0.3 --img_aug --txt_aug",
}


def kill_self() -> None:
    """As if the system had done it: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def child(argv: list[str], stepping: str, dies: tuple[str, int] | None, slow_images: bool, terminal: str) -> None:
    """One part of a run, as ``python train.py ARGV``.

    Args:
        argv: flags.
        stepping: a file to make at the first step.
        dies: "step" or "write", and before which of them it is killed.
        slow_images: whether it takes long to read an image.
        terminal: a terminal that becomes its own, and takes its output.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell starts "pytest &" with SIGINT ignored
        signal.signal(number, signal.SIG_DFL)
    sys.argv = ["train.py", *argv]
    if terminal:
        _move_to(terminal)
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
        datasets.images.cache.load_resized = lambda *args: time.sleep(0.05) or load_resized(*args)
    run_command(train_script.main, argv)


def _move_to(terminal: str) -> None:
    """Take a terminal as the one of this process's session, which has none, and for its output."""
    number = os.open(terminal, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(number, standard)


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

    def is_set(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def wait(self, timeout: float) -> bool:
        """Until the file is there, or the time is over."""
        end = time.monotonic() + timeout
        while not self.is_set() and time.monotonic() < end:
            time.sleep(0.002)
        return self.is_set()


def start(
    argv: list[str],
    said: Path,
    dies: tuple[str, int] | None = None,
    slow_images: bool = False,
    terminal: str = "",
) -> tuple[Child, Mark]:
    """:func:`child` in a process of its own, whose output is added to ``said``; the mark is made at its first step."""
    stepping = Mark(said.with_suffix(".stepping"))
    stepping.path.unlink(missing_ok=True)
    module = "tests.helpers.children"
    call = f"from {module} import child\nchild(*{(argv, str(stepping.path), dies, slow_images, terminal)!r})"
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
