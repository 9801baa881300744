"""A page of results: one HTML file with everything in it, and its diagrams as PNG files beside it."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from tqdm import tqdm

from datasets.contact_sheet import Tile
from datasets.images.decode import decode
from processor.run_dir.curves import save_png
from utils.log import hide_bar
from utils.tables import Table

HEIGHTS = (224, 176, 144, 112, 80, 56)
"""pictures are scaled to the first of these heights, in pixels, with which they all fit"""
PICTURE_BYTES = 8 << 20
"""what all pictures of a page may take"""


class Card(NamedTuple):
    """A sentence, and the pictures that belong to it."""

    title: str
    caption: str
    tiles: tuple[Tile, ...]
    aside: Tile | None = None
    """stands beside the sentence"""


_UNBROKEN_DASH = "\u2060\u2013\u2060"


def interval_text(value: float, low: float, high: float, digits: int = 0) -> str:
    """A number with its interval in brackets, which no line breaks."""
    return f"{value:.1f} ({low:.{digits}f}{_UNBROKEN_DASH}{high:.{digits}f})"


def plain_csv(table: Table) -> str:
    """A table of a page for a spreadsheet."""
    return table.csv().replace(_UNBROKEN_DASH, " to ")


class Diagram(NamedTuple):
    """A figure of a section."""

    name: str
    """of its PNG file"""
    alt: str
    """what it shows, for those who cannot see it"""
    figure: Figure
    wide: bool = False
    """of several panels beside each other, so that it takes the width of the page"""


class Section(NamedTuple):
    """A part of a page; what it does not have is left out."""

    title: str
    text: str = ""
    table: Table | None = None
    figures: tuple[Diagram, ...] = ()
    cards: tuple[Card, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    """words, and the files that they lead to, relative to the page"""


def write_page(
    folder: Path, title: str, facts: Mapping[str, str], sections: Sequence[Section], name: str = "report.html"
) -> Path:
    """Write a page called ``name`` and the PNG files of its diagrams to a folder, made if need be; returns the page.

    ``facts`` are names and values that stand below the title.
    """
    folder.mkdir(parents=True, exist_ok=True)
    diagrams = [diagram for section in sections for diagram in section.figures]
    for diagram in diagrams:
        save_png(diagram.figure, folder / f"{diagram.name}.png")
    tiles = [tile for section in sections for card in section.cards for tile in (*card.tiles, card.aside) if tile]
    environment = Environment(
        loader=PackageLoader("analysis"),
        autoescape=True,  # captions and paths come from anywhere
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        title=title,
        facts=facts,
        sections=sections,
        drawn={diagram.name: _svg(diagram.figure) for diagram in diagrams},
        pictures=_embedded(Counter(tile.path for tile in tiles)),
    )
    path = folder / name
    path.write_text(page, encoding="utf-8")
    return path


def _embedded(uses: Mapping[Path, int]) -> dict[Path, str]:
    """Every picture as a data URI, at the largest of :data:`HEIGHTS` with which all uses together fit."""
    bar = tqdm(uses, desc="pictures", leave=False, disable=hide_bar())
    images = {path: _shrunk(decode(path), HEIGHTS[0]) for path in bar}
    for height in HEIGHTS:
        pictures = {path: _jpeg(_shrunk(image, height)) for path, image in images.items()}
        if sum(len(uri) * uses[path] for path, uri in pictures.items()) <= PICTURE_BYTES:
            break
    return pictures


def _shrunk(image: Image.Image, height: int) -> Image.Image:
    inside = ImageOps.contain(image, (height, height), Image.Resampling.LANCZOS)
    return inside if inside.height < image.height else image


def _svg(figure: Figure) -> str:
    return _data_uri("svg+xml", lambda file: figure.savefig(file, format="svg"))


def _jpeg(image: Image.Image) -> str:
    return _data_uri("jpeg", lambda file: image.save(file, "JPEG", quality=82, optimize=True))


def _data_uri(kind: str, write: Callable[[BinaryIO], None]) -> str:
    write(file := io.BytesIO())
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
