"""The page itself: nothing from outside, nothing unescaped, small."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from analysis.figures import draw_bars
from analysis.page import Card, Diagram, Section, Tile, write_page
from utils.tables import Table


class Page(HTMLParser):
    """Counts elements and collects what they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.targets: list[str] = []
        self.alt: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.targets += [value or "" for name, value in attrs if name in ("src", "href")]
        self.alt += [value or "" for name, value in attrs if name == "alt"]


def noise(path: Path) -> Path:
    """A picture that compresses badly, a different one for every path."""
    generator = np.random.default_rng(int(path.stem))
    Image.fromarray(generator.integers(0, 256, (256, 128, 3), dtype=np.uint8)).save(path)
    return path


def test_captions_and_paths_cannot_become_markup(tmp_path: Path):
    evil = "<script>alert(1)</script> & \"quotes\" 'too'"
    tiles = (Tile(noise(tmp_path / "1.png"), evil, True), Tile(noise(tmp_path / "2.png"), "0.5", False))
    card = Card(evil, evil, tiles)
    figure = Diagram("bars", evil, draw_bars({"a": 1.0}, {"a": 3}, "x", "y"))
    section = Section(evil, evil, Table((evil,), ((evil,),)), (figure,), (card,))
    text = write_page(tmp_path / "new", evil, {"run": evil}, [section]).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.counts
    assert text.count("&lt;script&gt;") >= 8
    assert all(target.startswith(("data:image/", "#")) for target in page.targets)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "right: " + evil in page.alt and "wrong: 0.5" in page.alt
    assert (tmp_path / "new" / "bars.png").stat().st_size > 1000


def test_a_page_of_a_hundred_queries_stays_below_ten_megabytes(tmp_path: Path):
    paths = [noise(tmp_path / f"{number}.png") for number in range(40)]
    cards = tuple(
        Card(f"query {query}", "a man", tuple(Tile(paths[(query + rank) % 40], "0.1", False) for rank in range(10)))
        for query in range(100)
    )
    page = write_page(tmp_path, "many", {}, [Section("all", cards=cards)])
    assert page.stat().st_size < 10e6
    assert Page(page.read_text(encoding="utf-8")).counts["img"] == 1000
