"""Where a run directory is, and what makes one."""

import os
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from utils import FileError, UserError
from utils.files import write_text
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


def choose_run_dir(options: RunOptions, dataset_name: str) -> Path:
    """The run directory of a new run (not made yet), or that of a resumed one.

    Raises:
        UserError: it cannot be written, or holds another run.
    """
    if options.resume:
        return options.checkpoint.parent
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    folder = options.run_dir or options.output_dir / dataset_name / f"{stamp}_{options.name}"
    flag = "--run_dir" if options.run_dir else "--output_dir"
    names = ("last.pth", "last.previous.pth", "best.pth", "seed_*")
    if any(path for name in names for path in folder.glob(name)):
        raise UserError(
            f"{flag} {folder}: holds a run already; continue it with --resume --resume_ckpt_file {folder}, or name "
            "another directory"
        )
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{flag} {folder}: {existing} cannot be written ({error.strerror}); choose another with {flag}"
        ) from None
    return folder


def make_run_dir(run_dir: Path, options: Options) -> None:
    """Make the run directory, and note in it all flags and which torchrun started the run, if one did."""
    run = options.get(RunOptions)
    try:
        run_dir.mkdir(parents=True, exist_ok=run.resume or run.run_dir is not None or bool(run.seeds))
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
