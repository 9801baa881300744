"""Mannequins: a person retrieval data set drawn on the spot, for everyone without the licensed photos.

Every image and caption is a function of (seed, split, identity, image): the number of workers changes no byte.
``python -m datasets.mannequins`` draws it in the layout of any of the supported data sets.
"""

import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.mannequins.body import look_of
from datasets.mannequins.captions import caption
from datasets.mannequins.dice import LOOK, VIEW, WORDS, Dice
from datasets.mannequins.options import LAYOUTS, NAME, Layout, MannequinOptions
from datasets.mannequins.people import LEVELS, SPLITS, Person, people
from datasets.mannequins.photo import photograph
from utils import UserError

VERSION = 2
"""changes whenever the same options would give other images or captions"""


@dataclass(frozen=True)
class _Job:
    """All that a worker needs to draw one identity."""

    folder: Path
    options: MannequinOptions
    layout: Layout
    split: str
    identity: int
    pid: int
    person: Person


def _jobs(folder: Path, options: MannequinOptions, layout: Layout) -> Iterator[_Job]:
    counts = [getattr(options, f"mannequin_{split}_ids") for split in SPLITS]
    counts = tuple(count if split in layout.splits else 0 for split, count in zip(SPLITS, counts, strict=True))
    everyone = people(options.mannequin_seed, LEVELS[options.mannequin_difficulty], counts)
    for pid, (split, identity, person) in enumerate(everyone, start=layout.first_id):
        yield _Job(folder, options, layout, split, identity, pid, person)


def _draw_identity(job: _Job) -> list[dict[str, Any]]:
    """Write the images of one identity and return its records."""
    options, layout = job.options, job.layout
    level = LEVELS[options.mannequin_difficulty]
    key = (options.mannequin_seed, SPLITS.index(job.split), job.identity)
    dice = Dice(*key, LOOK)
    look = look_of(job.person, dice)
    # An eighth turn off an axis at most, so that the images of an identity show it from different sides.
    sides = dice.shuffled((0.0, 0.5, 1.0, -0.5))
    records = []
    for image in range(dice.whole(*options.image_range)):
        view = Dice(*key, VIEW, image)
        yaw = math.remainder((sides[image % 4] + view.between(-0.25, 0.25)) * math.pi, 2 * math.pi)
        jpeg, sight = photograph(job.person, look, yaw, options.mannequin_height, level, view)
        name = f"{job.split}/{job.pid:05d}_{image:02d}.jpg"
        (job.folder / "imgs" / name).write_bytes(jpeg)
        words = Dice(*key, WORDS, image)
        captions = [caption(job.person, sight, level, words) for _ in range(options.mannequin_captions_per_image)]
        record = {"id": job.pid, layout.key: name, "split": job.split, "captions": captions}
        if layout.tokens:
            record["processed_tokens"] = [re.findall(r"[a-z0-9'-]+", text.lower()) for text in captions]
        record["attributes"] = dataclasses.asdict(job.person)
        record["view"] = {"facing": sight.facing, "walking": sight.walking, "visible": sorted(sight.seen)}
        records.append(record)
    return records


def draw(folder: Path, options: MannequinOptions, layout: str = NAME, workers: int | None = None) -> None:
    """Draw a data set into a new folder, which appears when it is complete.

    Args:
        folder: the data set's own folder, such as ``data/Mannequins``; must not exist.
        options: what to draw.
        layout: a key of ``LAYOUTS``.
        workers: processes; None for one per core.

    Raises:
        UserError: an option is out of range, the folder exists, or cannot be written.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: expected at least 1")
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if folder.exists():
        raise UserError(f"{folder}: exists already; delete it or choose another root")
    unfinished = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.unfinished")
    try:
        for split in LAYOUTS[layout].splits:
            (unfinished / "imgs" / split).mkdir(parents=True)
        records = _draw_all(list(_jobs(unfinished, options, LAYOUTS[layout])), workers)
        # A record a line: real annotation files are as compact, and line tools can still read it.
        lines = ",\n".join(json.dumps(record) for record in records)
        (unfinished / LAYOUTS[layout].file).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        parameters = json.dumps(_parameters(options, layout), indent=1)
        (unfinished / "mannequins.json").write_text(f"{parameters}\n", encoding="utf-8")
        unfinished.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _draw_all(jobs: list[_Job], workers: int | None) -> list[dict[str, Any]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores if workers is None else workers, max(1, len(jobs) // 8))
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=len(jobs), desc="drawing Mannequins", unit="id", disable=None))
        if workers == 1:
            results = map(_draw_identity, jobs)
        else:
            # Forked workers start at once and do not import the caller's main module again.
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
            ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context, **ignore))
            # Without this, Ctrl-C would wait until everything is drawn.
            stack.callback(pool.shutdown, cancel_futures=True)
            results = pool.map(_draw_identity, jobs, chunksize=8)
        records = []
        for identity in results:
            records.extend(identity)
            bar.update()
    return records


def _parameters(options: MannequinOptions, layout: str) -> dict[str, Any]:
    return {"version": VERSION, "layout": layout, **dataclasses.asdict(options)}


def ensure(root: Path, options: MannequinOptions, layout: str = NAME, workers: int | None = None) -> Path:
    """The folder of the drawn data set under root; drawn on first use, checked against the options later.

    Raises:
        UserError: what is there was drawn with other options, or cannot be drawn.
    """
    folder = Path(root) / layout
    if not folder.exists():
        try:
            draw(folder, options, layout, workers)
        except UserError:
            # Another process that started at the same time may have finished first; then its result is checked.
            if not folder.exists():
                raise
    _compare(folder, _parameters(options, layout))
    return folder


def _compare(folder: Path, wanted: dict[str, Any]) -> None:
    path = folder / "mannequins.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: missing or damaged, so {folder} is no drawn data set; choose another --root_dir")
    for name, value in wanted.items():
        if found.get(name) != value:
            raise UserError(
                f"{folder}: was drawn with --{name} {found.get(name)}, not {value}; "
                "delete that folder or choose another --root_dir"
            )
