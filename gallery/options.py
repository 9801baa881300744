"""Flags of search.py; apart from the code that reads them, so that --help need not wait for FAISS and the models."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from utils import UserError
from utils.options import opt

HOST = "127.0.0.1"
"""the search page is for one person with a browser on this machine, or behind an ssh tunnel"""
MOST_HITS = 1000
"""photos per query, in a command and on the page"""
MOST_UPLOADED = 32 << 20
"""bytes of an image that is sent to the page"""


@dataclass(frozen=True)
class QueryOptions:
    """What to search for."""

    query: str | None = opt(None, "description of a person")
    queries: Path | None = opt(None, "text file with one description per line")
    query_image: Path | None = opt(None, "image file: find similar photos")
    k: int = opt(20, "photos to show per query", least=1, most=MOST_HITS)

    def __post_init__(self) -> None:
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


@dataclass(frozen=True)
class SearchOptions:
    """Where to search, and where results go."""

    gallery: Path | None = opt(None, "folder of photos, with all folders in it")
    checkpoint: Path | None = opt(None, "weights to search with; default: best.pth beside --config_file")
    output: Path | None = opt(None, "folder for contact sheets and results.jsonl; default: RUN/search/TIME")
    index_dir: Path | None = opt(None, "folder that holds indexes; default: RUN/search/index")
    update: bool = opt(True, "first look for photos that are new, changed or gone; without, search the index as it is")
    index_batch: int = opt(64, "photos encoded at once", least=1)
    export: Path | None = opt(None, "also write all vectors to this folder: vectors.npy, photos.jsonl, about.json")

    def __post_init__(self) -> None:
        if self.gallery is None:
            raise UserError("--gallery: say which folder of photos to search, as in --gallery PHOTOS")


@dataclass(frozen=True)
class RankingOptions:
    """How the nearest photos are found."""

    index: str = opt(
        "flat",
        "compare a query with every photo (exact), or only with those in the nearest inverted lists (for millions)",
        choices=("flat", "ivf"),
    )
    ivf_share: float = opt(
        0.1, "share of the lists that --index ivf searches; more is slower and misses less", above=0, most=1
    )


@dataclass(frozen=True)
class PageOptions:
    """Flags of the search page."""

    serve: bool = opt(False, f"open a search page on {HOST}")
    port: int = opt(7860, "port of the search page; 0 takes any that is free", least=0, most=65535)

    def __post_init__(self) -> None:
        for name in ("flask", "waitress"):
            if self.serve and find_spec(name) is None:
                raise UserError(f"--serve: needs the package {name}; pip install flask waitress")
