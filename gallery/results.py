"""The answers to the queries of a command line: printed, as a contact sheet per query, and in a file with all hits.

Also the vectors of a gallery, for other programs.
"""

import json
import logging
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from datasets.contact_sheet import Row, Tile, draw_sheet
from gallery.index import IndexedPhotos
from gallery.photos import printable
from gallery.searcher import PhotoHit, Searcher
from utils import UserError

log = logging.getLogger("descry")


class Answer(NamedTuple):
    """A query with its hits."""

    text: str
    """the sentence, or the path of the image"""
    image: Path | None
    """the image, where the query is one"""
    hits: list[PhotoHit]


def answer(searcher: Searcher, texts: Sequence[str], image: Path | None, k: int) -> list[Answer]:
    """Search for every description, then for the image if there is one, and log the hits.

    Raises:
        ImageError: the image cannot be decoded.
    """
    for text in texts:
        if truncation := searcher.encoder.truncation(text):
            log.warning("%s: %s", text, truncation)
    start = time.perf_counter()
    answers = [Answer(text, None, hits) for text, hits in zip(texts, searcher.by_texts(texts, k), strict=True)]
    if image is not None:
        answers.append(Answer(str(image), image, searcher.by_image(image, k)))
    seconds = time.perf_counter() - start
    for text, _, hits in answers:
        lines = (
            f"{rank:>4}  {hit.score:.4f}  {printable(str(searcher.gallery / hit.name))}"
            for rank, hit in enumerate(hits, start=1)
        )
        log.info("\n%s\n%s", text, "\n".join(lines))
    if answers:
        log.info("\n%.3f s per query in %s photos", seconds / len(answers), f"{len(searcher):,}")
    return answers


def write_answers(folder: Path, searcher: Searcher, answers: Sequence[Answer]) -> list[Path]:
    """Write ``results.jsonl``, a line per hit, and a contact sheet per query; returns the sheets.

    Raises:
        UserError: the folder cannot be written.
    """
    sheets = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "results.jsonl").open("w", encoding="utf-8") as file:
            for text, image, hits in answers:
                query = {"query" if image is None else "image": text}
                for rank, hit in enumerate(hits, start=1):
                    path = str(searcher.gallery / hit.name)
                    line = {**query, "rank": rank, "score": round(hit.score, 6), "path": path}
                    file.write(json.dumps(line) + "\n")
        for number, each in enumerate(answers, start=1):
            words = re.sub(r"[^\w]+", "_", each.image.stem if each.image else each.text).strip("_")
            sheets.append(folder / f"{number:03d}_{printable(words)[:40]}.jpg")
            _sheet(each, searcher).save(sheets[-1], quality=90)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written ({error.strerror or error})") from None
    return sheets


def _sheet(answer: Answer, searcher: Searcher) -> Image.Image:
    """The query, and its photos in order with rank, score and path."""
    tiles = [Tile(answer.image, "query")] if answer.image else []
    for rank, hit in enumerate(answer.hits, start=1):
        tiles.append(Tile(searcher.gallery / hit.name, f"{rank}  ·  {hit.score:.3f}\n{printable(hit.name)}"))
    note = f"best {len(answer.hits)} of {len(searcher):,} photos in {printable(str(searcher.gallery))}"
    columns = min(10, max(5, math.ceil(math.sqrt(len(tiles)))))
    row = Row(printable(answer.text), tiles, note)
    return draw_sheet([row], (200, 300), columns=columns, caption_width=0, font_size=24, crop=False)


def export(folder: Path, photos: IndexedPhotos, about: dict[str, Any]) -> None:
    """Write the vectors for other programs: ``vectors.npy``, ``photos.jsonl`` (a line per row), ``about.json``.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", photos.vectors_ND)
        with (folder / "photos.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"row": row, "path": name}) + "\n" for row, name in enumerate(photos.names))
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--export {folder}: cannot be written ({error.strerror or error})") from None
