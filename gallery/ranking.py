"""The photos nearest to a query: among all of them, or for millions of photos among those in the nearest lists.

Shape letters: N photos, Q queries, K hits, D embedding, L lists.
"""

import logging
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned
from tqdm import tqdm

from gallery.index import IndexedPhotos, row_slices
from gallery.options import RankingOptions
from utils.files import locked, replacing
from utils.log import hide_bar

log = logging.getLogger("descry")

_TRAINED_ON = 50
"""photos per list from which the centres are computed"""
_ROUNDS = 10


Ranking = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""queries (Q, D) and K to cosines (Q, K), best first, and positions (Q, K); padded with -inf and -1"""


def build_ranking(photos: IndexedPhotos, folder: Path, options: RankingOptions) -> Ranking:
    """The ranking that the flags ask for; ``folder`` is where inverted lists are kept."""
    if options.index == "ivf" and photos.names:
        return InvertedLists(photos, folder, options.ivf_share)
    return lambda query_QD, k: _nearest(query_QD, photos.vectors_ND, k)


def _nearest(query_QD: np.ndarray, row_ND: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As :data:`Ranking`, among all rows; a memory-mapped array is read in place."""
    return faiss.knn(query_QD, row_ND, k, metric=faiss.METRIC_INNER_PRODUCT)


class _Lists(NamedTuple):
    """Inverted lists as they are saved: plain arrays, because FAISS blindly trusts its own file format."""

    centres_LD: np.ndarray
    list_R: np.ndarray
    """the list of every row of the index's file, -1 if unknown"""
    trained_on: int
    """number of photos when the centres were computed"""
    generation: int
    """the file whose rows ``list_R`` describes"""


class InvertedLists:
    """FAISS's inverted lists with half-precision features; the centres are kept when photos come and go."""

    def __init__(self, photos: IndexedPhotos, folder: Path, share: float) -> None:
        """Load the lists saved in ``folder``, or compute and save them."""
        self._vectors_ND = photos.vectors_ND
        path = folder / "lists.npz"
        saved = _read(path, photos)
        lists = _with_all_rows(saved or _new_lists(photos), photos)
        if lists is not saved:
            _write(path, lists)
        count, dim = lists.centres_LD.shape
        centres, half = faiss.IndexFlatIP(dim), faiss.ScalarQuantizer.QT_fp16
        centres.add(lists.centres_LD)
        self._index = faiss.IndexIVFScalarQuantizer(centres, dim, count, half, faiss.METRIC_INNER_PRODUCT, False)
        self._index.train(lists.centres_LD)  # learns nothing, but FAISS insists
        self._search = faiss.SearchParametersIVF(nprobe=max(1, math.ceil(share * count)))
        list_N, position_N = lists.list_R[photos.row_N], np.arange(len(photos.names))
        for part in row_slices(len(position_N)):
            part_BD = np.ascontiguousarray(photos.vectors_ND[part])
            add_preassigned(self._index, part_BD, list_N[part], position_N[part])

    def __call__(self, query_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As :data:`Ranking`; more candidates than K are scored again in full precision."""
        candidates = min(2 * k + 32, len(self._vectors_ND))
        position_QC = self._index.search(query_QD, candidates, params=self._search)[1]
        score_QC = np.einsum("qcd,qd->qc", self._vectors_ND[position_QC], query_QD)
        score_QC[position_QC < 0] = -np.inf
        order_QK = np.argsort(-score_QC, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(score_QC, order_QK, 1), np.take_along_axis(position_QC, order_QK, 1)


def _new_lists(photos: IndexedPhotos) -> _Lists:
    """Lists with centres from a sample of the N photos, and no rows yet; about twice the square root of N lists."""
    count = max(1, min(2 * math.isqrt(len(photos.names)), len(photos.names) // _TRAINED_ON))
    sample_N = np.random.default_rng(0).permutation(len(photos.names))[: count * _TRAINED_ON]
    log.info("computing the centres of %d lists from %d photos", count, len(sample_N))
    sample_BD = np.ascontiguousarray(photos.vectors_ND[np.sort(sample_N)])
    centres_LD = None
    for _ in tqdm(range(_ROUNDS), desc="k-means", delay=1, disable=hide_bar()):  # one round at a time, for the bar
        kmeans = faiss.Kmeans(sample_BD.shape[1], count, niter=1, spherical=True, seed=1)
        kmeans.train(sample_BD, init_centroids=centres_LD)
        centres_LD = kmeans.centroids
    return _Lists(centres_LD, np.empty(0, np.int64), len(photos.names), photos.generation)


def _with_all_rows(lists: _Lists, photos: IndexedPhotos) -> _Lists:
    """The lists with every row that has a photo; the same object if nothing is missing."""
    list_R = np.full(photos.row_N[-1] + 1, -1)
    list_R[: len(lists.list_R)] = lists.list_R[: len(list_R)]
    todo_N = np.flatnonzero(list_R[photos.row_N] < 0)
    if not len(todo_N):
        return lists
    with tqdm(desc="assigning lists", total=len(todo_N), unit=" photos", delay=1, disable=hide_bar()) as bar:
        for part in row_slices(len(todo_N)):
            list_R[photos.row_N[todo_N[part]]] = _nearest(photos.vectors_ND[todo_N[part]], lists.centres_LD, 1)[1][:, 0]
            bar.update(len(todo_N[part]))
    return lists._replace(list_R=list_R)


def _read(path: Path, photos: IndexedPhotos) -> _Lists | None:
    """The saved lists; None if they are absent, unusable or made from less than half as many photos."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            lists = _Lists(*(arrays[name] for name in _Lists._fields))
        lists = lists._replace(trained_on=int(lists.trained_on), generation=int(lists.generation))
        count, dim = lists.centres_LD.shape
        types = (dim, lists.centres_LD.dtype, lists.list_R.dtype, lists.list_R.ndim)
        expected = (photos.vectors_ND.shape[1], np.float32, np.int64, 1)
        in_range_R = (lists.list_R >= -1) & (lists.list_R < count)
        if types != expected or not (in_range_R.all() and np.isfinite(lists.centres_LD).all()):
            log.warning("%s: wrong shape, type or values; computing the lists again", path)
            return None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: cannot be used, computing the lists again (%s)", path, error)
        return None
    if len(photos.names) > 2 * lists.trained_on:
        return None
    if lists.generation != photos.generation:
        return lists._replace(list_R=np.empty(0, np.int64), generation=photos.generation)
    return lists


def _write(path: Path, lists: _Lists) -> None:
    """Save the lists for the next search, if the folder is writable."""
    try:
        with locked(path.with_suffix(".lock")), replacing(path) as file:
            np.savez(file, **lists._asdict())
    except OSError as error:
        log.warning("%s; the next search will compute the lists again", error)
