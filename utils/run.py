"""Run directories, published flags, and how a command ends."""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from utils.distributed import join_processes, leave_processes, rank
from utils.options import Options, opt
from utils.terminal import RED, paint

LAUNCH = "torchrun.txt"
"""in a run directory: which torchrun started the run"""

PUBLISHED_WITHOUT_EFFECT = {
    "local_rank": "the launcher's environment says it",
    "vocab_size": "read off the weights",
    "ndata": "the number of training pairs is counted",
    "training": "train.py trains, test.py tests",
    "distributed": "the launcher's environment says it",
    "test": "train.py trains, test.py tests",
    "moe_lr_factor": "the published PHP never reads it",
    "transformer_lr_factor": "the published PHP never reads it",
    "lora": "--lora_r or --lora_alpha says it",
    "lora_FFN": "LoRA is on all linear layers of the towers",
    "Wq_r": "--lora_r says it",
    "Wk_r": "--lora_r says it",
    "Wv_r": "--lora_r says it",
    "vision_ctx": "as many as --num_context",
    "vision_depth": "the same as --prompt_depth",
    "pretrain_weight": "--pretrain_choice says it",
    "alpha_label": "belongs to none of the losses",
    "fine_tuning_factor": "belongs to none of the losses",
    "momentum_factor": "belongs to none of the losses",
    "queue_size": "belongs to none of the losses",
}
"""flags that published commands and run directories carry and that mean nothing here, with the reason"""


@dataclass(frozen=True)
class RunOptions:
    """Flags of the run directory."""

    name: str = opt("baseline", "ends the name of the run directory")
    output_dir: Path = opt(Path("logs"), "run directories are made in OUTPUT_DIR/DATASET/TIME_NAME")
    run_dir: Path | None = opt(None, "the run directory itself, instead of a new one below --output_dir")
    resume: bool = opt(False, "continue the run of --resume_ckpt_file, with its configs.yaml and in its directory")
    resume_ckpt_file: str = opt("", "RUN/last.pth to continue from, or RUN")
    seeds: tuple[int, ...] = opt((), "train once with each of these seeds, and report mean and spread")

    @property
    def checkpoint(self) -> Path:
        """The file to resume from."""
        path = Path(self.resume_ckpt_file)
        return path / "last.pth" if path.is_dir() else path

    @property
    def saved_flags(self) -> Path:
        """configs.yaml of the run that is resumed."""
        return self.checkpoint.parent / "configs.yaml"

    def __post_init__(self) -> None:
        if self.seeds and (len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0):
            shown = " ".join(map(str, self.seeds))
            raise ValueError(f"--seeds {shown}: expected two or more different numbers from 0 on; for one, use --seed")
        if self.resume and not self.resume_ckpt_file:
            raise ValueError("--resume: say from where with --resume_ckpt_file RUN/last.pth")


def choose_run_dir(options: RunOptions, dataset_name: str) -> Path:
    """The run directory of a new run (not made yet), or that of a resumed one.

    Raises:
        ValueError: it cannot be written, or holds another run.
    """
    if options.resume:
        return options.checkpoint.parent
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    folder = options.run_dir or options.output_dir / dataset_name / f"{stamp}_{options.name}"
    flag = "--run_dir" if options.run_dir else "--output_dir"
    names = ("last.pth", "last.previous.pth", "best.pth", "seed_*")
    if any(path for name in names for path in folder.glob(name)):
        raise ValueError(
            f"{flag} {folder}: holds a run already; continue it with --resume --resume_ckpt_file {folder}, or name "
            "another directory"
        )
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"{flag} {folder}: {existing} cannot be written ({error.strerror}); choose another with {flag}"
        ) from None
    return folder


def make_run_dir(run_dir: Path, options: Options) -> None:
    """Make the run directory, and note in it all flags and which torchrun started the run, if one did."""
    run = options.get(RunOptions)
    run_dir.mkdir(parents=True, exist_ok=run.resume or run.run_dir is not None or bool(run.seeds))
    options.changed(resume=False, resume_ckpt_file="").save(run_dir / "configs.yaml")
    if launch := _launch():
        (run_dir / LAUNCH).write_text(launch, encoding="utf-8")


def interrupted_run(run: RunOptions, dataset_name: str) -> Path | None:
    """The run directory to go on in where torchrun starts its processes again, because one of them died.

    None in a first start, where the run had not come to making its directory, and where the command line says what to
    resume.
    """
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or run.resume:
        return None
    folders = [run.run_dir] if run.run_dir else (run.output_dir / dataset_name).glob("*")
    notes = [folder / LAUNCH for folder in folders]
    own = [note for note in notes if note.is_file() and note.read_text(encoding="utf-8") == _launch()]
    return max(own, key=lambda note: note.stat().st_mtime).parent if own else None


def _launch() -> str:
    """What the starts and restarts of one torchrun have in common, and no other torchrun has; "" without torchrun."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"none of process {os.getppid()}" if run_id == "none" else run_id  # none: several nodes without --rdzv_id


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run a script's main function, with the processes that torchrun started beside this one.

    An error that a user can mend ends in one line and exit code 2.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # the scripts' first lines leave it so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        join_processes()
        main(argv)
        leave_processes()
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("DESCRY_TRACEBACK"):
            raise
        where = f" (process {rank()})" if rank() else ""
        line = f"{Path(sys.argv[0]).name}: error{where}: {_in_our_words(error)}"
        print(paint(line, RED, sys.stderr), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _in_our_words(error: Exception) -> str:
    """The message of an error; PyTorch raises that of a dead loader process wherever the program happens to be."""
    dead = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]*)", str(error))
    if not dead:
        return str(error)
    return (
        f"a process that loads images died: pid {dead[1]} {dead[2].strip()}. Usually memory, or the shared memory in "
        "/dev/shm, is too small: give fewer --num_workers or a smaller --batch_size. Checkpoints are untouched"
    )
