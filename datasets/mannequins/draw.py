"""Mannequins: a person retrieval data set drawn on the spot, for everyone without the licensed photos.

Every image and caption is a function of (seed, split, identity, image): the number of workers changes no byte.
``python -m datasets.mannequins`` draws it in the layout of any of the supported data sets.
"""

import contextlib
import dataclasses
import json
import logging
import math
import multiprocessing
import os
import re
import secrets
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.mannequins.body import look_of
from datasets.mannequins.captions import caption
from datasets.mannequins.dice import LOOK, VIEW, WORDS, Dice
from datasets.mannequins.options import LAYOUTS, NAME, Layout, MannequinOptions
from datasets.mannequins.people import LEVELS, SPLITS, Person, people
from datasets.mannequins.photo import photograph
from datasets.parallel import start_worker
from utils import UserError
from utils.device import available_cores

log = logging.getLogger("descry")

VERSION = 2
"""changes whenever the same options would give different images or captions"""


@dataclass(frozen=True)
class _Artist:
    """Draws identities, in any process."""

    folder: Path
    options: MannequinOptions
    layout: Layout

    def everyone(self) -> list[tuple[int, str, int, Person]]:
        """Who is to be drawn: (id, split, number within the split, person)."""
        options, layout = self.options, self.layout
        counts = [getattr(options, f"mannequin_{split}_ids") if split in layout.splits else 0 for split in SPLITS]
        found = people(options.mannequin_seed, LEVELS[options.mannequin_difficulty], counts)
        return [(pid, *each) for pid, each in enumerate(found, start=layout.first_id)]

    def draw(self, who: tuple[int, str, int, Person]) -> list[dict[str, Any]]:
        """Write the images of one identity and return its records."""
        pid, split, identity, person = who
        options, level = self.options, LEVELS[self.options.mannequin_difficulty]
        key = (options.mannequin_seed, SPLITS.index(split), identity)
        dice = Dice(*key, LOOK)
        look = look_of(person, dice)
        # An eighth turn off an axis at most, so that the images of an identity show it from different sides.
        sides = dice.shuffled((0.0, 0.5, 1.0, -0.5))
        records = []
        for image in range(dice.whole(*options.image_range)):
            view, words = Dice(*key, VIEW, image), Dice(*key, WORDS, image)
            yaw = math.remainder((sides[image % 4] + view.between(-0.25, 0.25)) * math.pi, 2 * math.pi)
            jpeg, sight = photograph(person, look, yaw, options.mannequin_height, level, view)
            name = f"{split}/{pid:05d}_{image:02d}.jpg"
            (self.folder / "imgs" / name).write_bytes(jpeg)
            captions = [caption(person, sight, level, words) for _ in range(options.mannequin_captions_per_image)]
            record = {"id": pid, self.layout.key: name, "split": split, "captions": captions}
            if self.layout.tokens:
                record["processed_tokens"] = [re.findall(r"[a-z0-9'-]+", text.lower()) for text in captions]
            record["attributes"] = dataclasses.asdict(person)
            record["view"] = {"facing": sight.facing, "walking": sight.walking, "visible": sorted(sight.seen)}
            records.append(record)
        return records


def draw(folder: Path, options: MannequinOptions, layout: str = NAME, workers: int | None = None) -> None:
    """Draw a data set into a new folder, such as ``data/Mannequins``, which appears when it is complete.

    ``layout`` is a key of ``LAYOUTS``; ``workers`` None stands for one process per core.

    Raises:
        UserError: an option is out of range, the folder exists, or cannot be written.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: expected at least 1")
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if folder.exists():
        raise UserError(f"{folder}: already exists; delete it or choose another root")
    unfinished = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.unfinished")
    try:
        for split in LAYOUTS[layout].splits:
            (unfinished / "imgs" / split).mkdir(parents=True)
        records = _draw_all(_Artist(unfinished, options, LAYOUTS[layout]), workers)
        # A record a line: real annotation files are as compact, and line tools can still read it.
        lines = ",\n".join(json.dumps(record) for record in records)
        (unfinished / LAYOUTS[layout].file).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        parameters = json.dumps(_parameters(options, layout), indent=1)
        (unfinished / "mannequins.json").write_text(f"{parameters}\n", encoding="utf-8")
        unfinished.rename(folder)
    except KeyboardInterrupt:
        log.warning("drawing stopped: nothing is kept, and the next command draws %s from the start", folder)
        raise
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _draw_all(artist: _Artist, workers: int | None) -> list[dict[str, Any]]:
    everyone = artist.everyone()
    cores = available_cores()
    workers = min(cores if workers is None else min(workers, 4 * cores), max(1, len(everyone) // 8))
    with contextlib.ExitStack() as stack:
        if workers == 1:
            results = map(artist.draw, everyone)
        else:
            # Forked workers start at once and do not import the caller's main module again.
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, context, start_worker, (os.getpid(),)))
            # Without this, Ctrl-C would wait until everything is drawn.
            stack.callback(pool.shutdown, cancel_futures=True)
            results = pool.map(artist.draw, everyone, chunksize=8)
        bar = tqdm(results, "drawing Mannequins", len(everyone), unit="id", disable=None)
        return list(chain.from_iterable(bar))


def _parameters(options: MannequinOptions, layout: str) -> dict[str, Any]:
    return {"version": VERSION, "layout": layout, **dataclasses.asdict(options)}


def ensure(root: Path, options: MannequinOptions, layout: str = NAME, workers: int | None = None) -> Path:
    """The folder of the drawn data set under root: drawn on first use, then checked against the options.

    Raises:
        UserError: the folder was drawn with other options, or cannot be drawn.
    """
    folder = root / layout
    if not folder.exists():
        try:
            draw(folder, options, layout, workers)
        except UserError:
            # Another process that started at the same time may have finished first; then its result is checked.
            if not folder.exists():
                raise
    path = folder / "mannequins.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: missing or damaged, so {folder} is not a drawn data set; choose another --root_dir")
    for name, value in _parameters(options, layout).items():
        if found.get(name) != value:
            change = f"was drawn with --{name} {found.get(name)}, not {value}"
            raise UserError(f"{folder}: {change}; delete that folder or choose another --root_dir")
    return folder
