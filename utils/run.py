"""Run directories, published flags, and how a command ends."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from utils.options import opt
from utils.terminal import RED, paint

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
    resume_ckpt_file: str = opt("", "RUN/last.pth to continue from")

    @property
    def saved_flags(self) -> Path:
        """configs.yaml of the run that is resumed."""
        return Path(self.resume_ckpt_file).parent / "configs.yaml"

    def __post_init__(self) -> None:
        if self.resume and not self.resume_ckpt_file:
            raise ValueError("--resume: say from where with --resume_ckpt_file RUN/last.pth")


def choose_run_dir(options: RunOptions, dataset_name: str) -> Path:
    """The run directory of a new run (not made yet), or that of a resumed one.

    Raises:
        ValueError: it cannot be written, or holds another run.
    """
    if options.resume:
        return Path(options.resume_ckpt_file).parent
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    folder = options.run_dir or options.output_dir / dataset_name / f"{stamp}_{options.name}"
    flag = "--run_dir" if options.run_dir else "--output_dir"
    if (folder / "last.pth").exists() or (folder / "best.pth").exists():
        raise ValueError(
            f"{flag} {folder}: holds a run already; continue it with --resume --resume_ckpt_file {folder}/last.pth, "
            "or name another directory"
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


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run a script's main function; an error that a user can mend ends in one line and exit code 2."""
    try:
        main(argv)
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("DESCRY_TRACEBACK"):
            raise
        print(paint(f"{Path(sys.argv[0]).name}: error: {error}", RED, sys.stderr), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
