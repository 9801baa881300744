"""Where a run directory is, and what makes one."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from datasets.options import MOST_SEED
from utils import FileError, UserError
from utils.distributed import on_main
from utils.files import held, write_text
from utils.options import Options, opt

LAUNCH = "torchrun.txt"
"""in a run directory: which torchrun started the run"""


@dataclass(frozen=True)
class RunOptions:
    """Flags of the run directory."""

    name: str = opt("baseline", "last part of the run directory's name")
    output_dir: Path = opt(Path("logs"), "run directories are made in OUTPUT_DIR/DATASET/TIME_NAME")
    run_dir: Path | None = opt(None, "the run directory itself, instead of a new one below --output_dir")
    resume: bool = opt(False, "continue the run of --resume_ckpt_file, with its configs.yaml and in its directory")
    resume_ckpt_file: str = opt("", "RUN/last.pth to continue from, or RUN")
    seeds: tuple[int, ...] = opt((), "train once with each of these seeds, and report mean and spread", most=MOST_SEED)

    @property
    def checkpoint(self) -> Path:
        """The file to resume from."""
        path = Path(self.resume_ckpt_file)
        return path / "last.pth" if path.is_dir() else path

    @property
    def saved_flags(self) -> Path:
        """configs.yaml of the run that is resumed. Raises UserError where there is none."""
        path = self.checkpoint.parent / "configs.yaml"
        if not path.is_file():
            found = "no configs.yaml beside it" if Path(self.resume_ckpt_file).exists() else "no such file or folder"
            raise UserError(f"--resume_ckpt_file {self.resume_ckpt_file}: {found}; expected RUN/last.pth, or RUN")
        return path

    def refuse_config_file(self, config_file: Path | None) -> None:
        """Raise a UserError where ``--resume`` comes with a ``--config_file`` other than the run's own."""
        if config_file is not None and config_file.resolve() != self.saved_flags.resolve():
            raise UserError(
                f"--config_file {config_file}: cannot be combined with --resume, which takes its flags from "
                f"{self.saved_flags}; leave it out, and give what is to change on the command line"
            )

    def __post_init__(self) -> None:
        if self.seeds and (len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0):
            shown = " ".join(map(str, self.seeds))
            raise UserError(f"--seeds {shown}: expected two or more different numbers from 0 on; for one, use --seed")
        if self.resume and not self.resume_ckpt_file:
            raise UserError("--resume: needs --resume_ckpt_file RUN/last.pth")
        if self.resume_ckpt_file and not self.resume:
            raise UserError(f"--resume_ckpt_file {self.resume_ckpt_file}: has no effect without --resume")


@contextmanager
def run_directory(options: RunOptions, dataset_name: str) -> Iterator[Path]:
    """The directory of a new run, or that of a resumed one; while the block runs, no other run can write to it.

    Raises:
        UserError: it cannot be written, another process is at work in it, or it holds another run.
    """
    stamp = on_main(lambda: datetime.now().strftime("%Y%m%d_%H%M%S"))
    folder = options.run_dir or options.output_dir / dataset_name / f"{stamp}_{options.name}"
    flag, remedy = f"--run_dir {folder}" if options.run_dir else f"--output_dir {folder}", "choose another directory"
    if options.resume:
        folder = options.checkpoint.parent
        flag, remedy = f"--resume_ckpt_file {folder}", "stop it first"
    with ExitStack() as stack:
        on_main(lambda: stack.enter_context(held(folder, flag, remedy)))
        if not options.resume:
            on_main(lambda: _refuse_other_run(folder, flag))
        yield folder


def _refuse_other_run(folder: Path, flag: str) -> None:
    names = ("last.pth", "last.previous.pth", "best.pth", "seed_*")
    if any(path for name in names for path in folder.glob(name)):
        raise UserError(
            f"{flag}: holds a run already; continue it with --resume --resume_ckpt_file {folder}, or name another "
            "directory"
        )


def make_run_dir(run_dir: Path, options: Options) -> None:
    """Make the run directory, and note in it all flags and which torchrun started the run, if one did."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"run directory {run_dir}: cannot be created ({error.strerror}); choose another") from None
    options.replaced(resume=False, resume_ckpt_file="").save(run_dir / "configs.yaml")
    if launch := _launch():
        write_text(run_dir / LAUNCH, launch)


def interrupted_run(run: RunOptions, dataset_name: str) -> Path | None:
    """The run directory to resume where torchrun restarts its processes because one of them died.

    None on a first start, where the run had not created its directory yet, and where the command line has --resume.
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
