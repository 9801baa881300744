"""Flags of data: which, how batched, and how training samples are varied."""

import logging
import resource
import shutil
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datasets import DATASETS
from datasets.captions import AugmentOptions
from datasets.images.source import ImageOptions
from datasets.label_noise import NoiseOptions
from datasets.mannequins.options import MannequinOptions
from datasets.shards.options import SHARDS, ShardOptions
from utils import UserError
from utils.device import available_cores
from utils.distributed import local_world_size
from utils.options import opt

log = logging.getLogger("descry")

_WORKERS_PER_CORE = 4
_FILES, _FILES_PER_WORKER = 64, 12
"""open files of a run, and those of a loader process: pipes of queues, for training and for evaluation"""
_SHARED_PER_WORKER = 1 << 17
"""bytes of its queues' semaphores; that of a batch comes on top"""

MOST_SEED = 2**63 - 1
"""what PyTorch's generators take"""


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how it is batched."""

    dataset_name: str = opt(
        "CUHK-PEDES",
        "data set, or several joined by + to train one model for all; Mannequins is drawn on first use",
        choices=(*DATASETS, SHARDS),
        joined="+",
    )
    root_dir: Path | tuple[Path, ...] = opt(
        Path("./data"), "folder that holds the data sets (for Custom: the data set itself; for Shards: one or more)"
    )
    val_dataset: str = opt("test", "split that chooses best.pth", choices=("test", "val"))
    val_sets: tuple[str, ...] = opt(
        (), "data sets to evaluate on instead, as NAME=ROOT_DIR; their mean R1 on val chooses best.pth"
    )
    batch_size: int = opt(128, "pairs in a training batch, over all processes", least=1)
    test_batch_size: int = opt(512, "images or captions encoded at once in evaluation", least=1)
    num_workers: int | None = opt(
        None, "processes that load images, at most 4 per core; default: one per core, at most 8", least=0
    )
    many_workers: bool = opt(False, "start as many processes as --num_workers says, even more than 4 per core")
    sampler: str = opt("random", "order of training pairs", choices=("random", "identity"))
    joint_sampling: str = opt(
        "proportional",
        "joined data sets: every pair once in an epoch, or as many pairs of each set",
        choices=("proportional", "equal"),
    )
    num_instance: int = opt(4, "pairs per identity in a batch of the identity sampler", least=1)
    seed: int = opt(1, "seed of every random choice", least=0, most=MOST_SEED)

    def __post_init__(self) -> None:
        names = self.dataset_names
        if len(set(names)) < len(names):
            raise UserError(f"--dataset_name {self.dataset_name}: a data set is there twice")
        if len(names) > 1 and (alone := {"Custom", SHARDS} & {*names}):
            raise UserError(
                f"--dataset_name {self.dataset_name}: {min(alone)} cannot be joined with others, because --root_dir is "
                "its own folder"
            )
        for text in self.val_sets:
            name, equals, root = text.partition("=")
            if name not in DATASETS or not (equals and root):
                raise UserError(f"--val_sets {text}: expected NAME=ROOT_DIR with a name of {', '.join(DATASETS)}")
        if twice := [text for text in self.val_sets if self.val_sets.count(text) > 1]:
            raise UserError(f"--val_sets: {twice[0]} is there twice")

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders of ``--root_dir``."""
        return self.root_dir if isinstance(self.root_dir, tuple) else (self.root_dir,)

    @property
    def root(self) -> Path:
        """The folder of ``--root_dir``. Raises UserError if there are several."""
        if len(self.roots) > 1:
            shown = " ".join(map(str, self.roots))
            raise UserError(f"--root_dir {shown}: {self.dataset_name} takes one folder; only {SHARDS} takes several")
        return self.roots[0]

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """The data sets that are joined; usually one."""
        return tuple(self.dataset_name.split("+"))

    @property
    def workers(self) -> int:
        """Loader processes."""
        if self.num_workers is None:
            return min(8, max(1, available_cores() // local_world_size()))
        return self.num_workers if self.many_workers else min(self.num_workers, _WORKERS_PER_CORE * available_cores())

    def check_workers(self) -> None:
        """Say where there are more loader processes than cores, and where there are fewer than asked for.

        Raises:
            UserError: this process may not open as many files, or has not as much shared memory, as they need.
        """
        if self.workers:
            _require_files(self.workers)
            _require_shared_memory(self.workers)
        warnings.filterwarnings("ignore", "This DataLoader will create")  # PyTorch's words for what is said here
        cores, wanted = available_cores(), self.num_workers or 0
        if wanted > self.workers:
            more = f"starting {self.workers}, {_WORKERS_PER_CORE} per core; --many_workers starts them all"
            log.warning("--num_workers %d: this machine has %d cores; %s", wanted, cores, more)
        elif wanted > cores:
            log.warning("--num_workers %d: this machine has only %d cores", wanted, cores)


def _require_files(workers: int) -> None:
    needed = _FILES + _FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    elif hard < needed:
        raise UserError(
            f"--num_workers {workers}: may need {needed} open files, the limit is {hard}; raise it (ulimit -n 4096) or "
            "use fewer"
        )


def _require_shared_memory(workers: int) -> None:
    with suppress(FileNotFoundError):  # a system without it
        free, needed = shutil.disk_usage("/dev/shm").free, _SHARED_PER_WORKER * workers
        if free < needed:
            raise UserError(
                f"--num_workers {workers}: needs at least {needed / 1e6:.1f} MB of shared memory, and /dev/shm has "
                f"{free / 1e6:.1f} MB free; enlarge it, or use --num_workers 0"
            )


def data_options() -> dict[str, list[type]]:
    """Titles and option dataclasses of everything about data, for the parser."""
    return {
        "data": [DataOptions, ImageOptions, AugmentOptions, NoiseOptions],
        "shards": [ShardOptions],
        "drawn data (Mannequins)": [MannequinOptions],
    }
