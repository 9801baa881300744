"""The files of a search: a contact sheet per query, one file with all hits, and vectors for other programs."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from datasets.contact_sheet import Row, Tile, draw_sheet
from gallery.index import IndexedPhotos
from gallery.photos import printable
from gallery.searcher import PhotoHit
from utils import UserError


class Answer(NamedTuple):
    """A query with its hits."""

    text: str
    """the sentence, or the path of the image"""
    image: Path | None
    """the image, where the query is one"""
    hits: list[PhotoHit]


def write_answers(folder: Path, gallery: Path, answers: Sequence[Answer], total: int) -> list[Path]:
    """Write ``results.jsonl``, a line per hit, and a contact sheet per query.

    Args:
        folder: created if it does not exist.
        gallery: the folder of the photos.
        answers: what to write.
        total: number of photos searched.

    Returns:
        the contact sheets.

    Raises:
        UserError: the folder cannot be written.
    """
    sheets = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "results.jsonl").open("w", encoding="utf-8") as file:
            for answer in answers:
                query = {"query" if answer.image is None else "image": answer.text}
                for rank, hit in enumerate(answer.hits, start=1):
                    line = {**query, "rank": rank, "score": round(hit.score, 6), "path": str(gallery / hit.name)}
                    file.write(json.dumps(line) + "\n")
        for number, answer in enumerate(answers, start=1):
            words = re.sub(r"[^\w]+", "_", answer.image.stem if answer.image else answer.text).strip("_")
            sheets.append(folder / f"{number:03d}_{printable(words)[:40]}.jpg")
            _sheet(answer, gallery, total).save(sheets[-1], quality=90)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written ({error.strerror or error})") from None
    return sheets


def _sheet(answer: Answer, gallery: Path, total: int) -> Image.Image:
    """The query, and its photos in order with rank, score and path."""
    tiles = [Tile(answer.image, "query")] if answer.image else []
    for rank, hit in enumerate(answer.hits, start=1):
        tiles.append(Tile(gallery / hit.name, f"{rank}  ·  {hit.score:.3f}\n{printable(hit.name)}"))
    note = f"best {len(answer.hits)} of {total:,} photos in {printable(str(gallery))}"
    return draw_sheet(
        [Row(printable(answer.text), tiles, note)],
        (200, 300),
        columns=min(10, max(5, math.ceil(math.sqrt(len(tiles))))),
        caption_width=0,
        font_size=24,
        crop=False,
    )


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
