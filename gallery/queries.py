"""The queries of a command line, and their answers."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gallery.photos import printable
from gallery.results import Answer
from gallery.searcher import Searcher
from utils import UserError
from utils.options import opt

log = logging.getLogger("descry")

MOST = 1000


@dataclass(frozen=True)
class QueryOptions:
    """Flags that say what to search for."""

    query: str | None = opt(None, "description of a person")
    queries: Path | None = opt(None, "text file with one description per line")
    query_image: Path | None = opt(None, "image file: find similar photos")
    k: int = opt(20, "photos to show per query")

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST:
            raise UserError(f"-k {self.k}: expected 1 to {MOST}")
        if self.query is not None and not self.query.strip():
            raise UserError('--query: empty; describe a person, as in --query "a man in a black jacket"')
        if self.query_image is not None and not self.query_image.is_file():
            raise UserError(f"--query_image {self.query_image}: no such file")

    def texts(self) -> list[str]:
        """The descriptions of ``--query`` and ``--queries``, without empty lines.

        Raises:
            UserError: the file cannot be read or holds none.
        """
        texts = [self.query] if self.query is not None else []
        if self.queries is None:
            return texts
        try:
            lines = self.queries.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UserError(f"--queries {self.queries}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise UserError(f"--queries {self.queries}: not UTF-8 text ({error})") from None
        descriptions = [line.strip() for line in lines if line.strip()]
        if not descriptions:
            raise UserError(f"--queries {self.queries}: no line holds a description")
        return texts + descriptions


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
    for one in answers:
        lines = (
            f"{rank:>4}  {hit.score:.4f}  {printable(str(searcher.gallery / hit.name))}"
            for rank, hit in enumerate(one.hits, start=1)
        )
        log.info("\n%s\n%s", one.text, "\n".join(lines))
    if answers:
        log.info("\n%.3f s per query in %s photos", seconds / len(answers), f"{len(searcher):,}")
    return answers
