"""The photos nearest to a query: exactly, or for millions of photos by looking into the likeliest lists only.

Shape letters: N photos, Q queries, K hits, D embedding, L lists.
"""

import logging
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned
from tqdm import tqdm

from gallery.index import Photos
from utils.files import locked, replacing
from utils.options import opt

log = logging.getLogger("descry")

_ROWS_AT_ONCE = 1 << 16
_TRAINED_ON = 50
"""photos per list that the lists' centres are computed from"""
_ROUNDS = 10
_MORE = (2, 32)
"""candidates for K hits, scored again in full precision: so many times K, and so many more"""


@dataclass(frozen=True)
class RankingOptions:
    """How the nearest photos are found."""

    index: str = opt(
        "flat",
        "compare a query with every photo (exact), or with those in the likeliest inverted lists (for millions)",
        choices=("flat", "ivf"),
    )
    ivf_share: float = opt(0.1, "share of the lists that --index ivf looks into; more is slower and misses less")

    def __post_init__(self) -> None:
        if not 0 < self.ivf_share <= 1:
            raise ValueError(f"--ivf_share {self.ivf_share:g}: expected a number above 0, at most 1")


Ranking = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""queries (Q, D) and K to cosines (Q, K), best first, and positions (Q, K); -1 and -inf where there are no more"""


def build_ranking(photos: Photos, folder: Path, options: RankingOptions) -> Ranking:
    """The ranking that the flags ask for.

    Args:
        photos: the index.
        folder: where inverted lists are kept.
        options: the flags.
    """
    if options.index == "flat" or not photos.names:
        return lambda query_QD, k: nearest(query_QD, photos.vectors_ND, k)
    return InvertedLists(photos, folder, options.ivf_share)


def nearest(query_QD: np.ndarray, vectors_ND: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest inner products of every query, over all rows; reads a memory-mapped array where it lies."""
    return faiss.knn(query_QD, vectors_ND, k, metric=faiss.METRIC_INNER_PRODUCT)


class _Lists(NamedTuple):
    """What is kept of inverted lists."""

    centres_LD: np.ndarray
    list_R: np.ndarray
    """the list of every row of the index's file, -1 where it is not known"""
    trained_on: int
    """how many photos there were when the centres were computed"""
    generation: int
    """the file that ``list_R`` is about"""


class InvertedLists:
    """FAISS's inverted lists, with half precision features, over the photos of an index.

    The centres and the list of every row are kept as plain arrays, so that photos can come and go without computing
    centres again, and because FAISS trusts files in its own format when it reads them.
    """

    def __init__(self, photos: Photos, folder: Path, share: float) -> None:
        """Take the lists that are kept in ``folder``, or compute them and keep them there."""
        self._vectors_ND = photos.vectors_ND
        path = folder / "lists.npz"
        kept = _read(path, photos)
        lists = _with_all_rows(kept or _new_lists(photos), photos)
        if kept is None or lists.list_R is not kept.list_R:
            _write(path, lists)
        count, dim = lists.centres_LD.shape
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(lists.centres_LD)
        half = faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexIVFScalarQuantizer(quantizer, dim, count, half, faiss.METRIC_INNER_PRODUCT, False)
        self._index.train(
            lists.centres_LD
        )  # only marks it as ready: the lists are there, half precision learns nothing
        self._search = faiss.SearchParametersIVF(nprobe=max(1, math.ceil(share * count)))
        list_N, position_N = lists.list_R[photos.row_N], np.arange(len(photos.names))
        for part in _parts(len(position_N)):
            part_BD = np.ascontiguousarray(photos.vectors_ND[part])
            add_preassigned(self._index, part_BD, list_N[part], position_N[part])

    def __call__(self, query_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As :data:`Ranking`. What the lists propose is scored again in full precision."""
        candidates = min(_MORE[0] * k + _MORE[1], len(self._vectors_ND))
        position_QC = self._index.search(query_QD, candidates, params=self._search)[1]
        score_QC = np.einsum("qcd,qd->qc", self._vectors_ND[position_QC], query_QD)
        score_QC[position_QC < 0] = -np.inf
        order_QK = np.argsort(-score_QC, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(score_QC, order_QK, 1), np.take_along_axis(position_QC, order_QK, 1)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, count, _ROWS_AT_ONCE))


def _new_lists(photos: Photos) -> _Lists:
    """Twice as many lists as the root of the number of photos, with centres from a sample of them."""
    count = max(1, min(2 * math.isqrt(len(photos.names)), len(photos.names) // _TRAINED_ON))
    sample_N = np.random.default_rng(0).permutation(len(photos.names))[: count * _TRAINED_ON]
    log.info("computing the centres of %d lists from %d photos", count, len(sample_N))
    sample_BD = np.ascontiguousarray(photos.vectors_ND[np.sort(sample_N)])
    centres_LD = None
    for _ in tqdm(range(_ROUNDS), desc="k-means", delay=1, disable=None):  # one round at a time, for the bar
        kmeans = faiss.Kmeans(sample_BD.shape[1], count, niter=1, spherical=True, seed=1)
        kmeans.train(sample_BD, init_centroids=centres_LD)
        centres_LD = kmeans.centroids
    return _Lists(centres_LD, np.empty(0, np.int64), len(photos.names), photos.generation)


def _with_all_rows(lists: _Lists, photos: Photos) -> _Lists:
    """The same lists, with the list of every row that has a photo; the same object where there is nothing to add."""
    list_R = np.full(photos.row_N[-1] + 1, -1)
    list_R[: len(lists.list_R)] = lists.list_R[: len(list_R)]
    todo_N = np.flatnonzero(list_R[photos.row_N] < 0)
    if not len(todo_N):
        return lists
    quantizer = faiss.IndexFlatIP(lists.centres_LD.shape[1])
    quantizer.add(lists.centres_LD)
    with tqdm(desc="sorting into lists", total=len(todo_N), unit=" photos", delay=1, disable=None) as bar:
        for part in _parts(len(todo_N)):
            found_B1 = quantizer.assign(np.ascontiguousarray(photos.vectors_ND[todo_N[part]]), 1)
            list_R[photos.row_N[todo_N[part]]] = found_B1[:, 0]
            bar.update(len(found_B1))
    return lists._replace(list_R=list_R)


def _read(path: Path, photos: Photos) -> _Lists | None:
    """The lists that are kept, or None where they are absent, unusable or made from less than half of the photos."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            lists = _Lists(*(arrays[name] for name in _Lists._fields))
        lists = lists._replace(trained_on=int(lists.trained_on), generation=int(lists.generation))
        count, dim = lists.centres_LD.shape
        usable = (
            dim == photos.vectors_ND.shape[1]
            and lists.centres_LD.dtype == np.float32
            and lists.list_R.dtype == np.int64
            and lists.list_R.ndim == 1
            and ((lists.list_R >= -1) & (lists.list_R < count)).all()
            and np.isfinite(lists.centres_LD).all()
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: cannot be used, the lists are computed anew (%s)", path, error)
        return None
    if not usable:
        log.warning("%s: cannot be used, the lists are computed anew", path)
    if not usable or len(photos.names) > 2 * lists.trained_on:
        return None
    if lists.generation != photos.generation:
        return lists._replace(list_R=np.empty(0, np.int64), generation=photos.generation)
    return lists


def _write(path: Path, lists: _Lists) -> None:
    """Keep the lists for the next time, if the folder may be written."""
    try:
        with locked(path.with_suffix(".lock")), replacing(path) as file:
            np.savez(file, **lists._asdict())
    except OSError as error:
        log.warning("%s; the lists are computed again next time", error)
