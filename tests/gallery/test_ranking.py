"""Ranking: the exact one against a naive product, inverted lists against the exact one."""

from pathlib import Path

import numpy as np
import pytest

from gallery import ranking
from gallery.index import IndexedPhotos
from gallery.options import RankingOptions
from gallery.ranking import build_ranking
from tests.helpers.colours import unit_rows

DIM = 16


def photos_of(vectors_ND: np.ndarray, row_N: np.ndarray | None = None, generation: int = 0) -> IndexedPhotos:
    row_N = np.arange(len(vectors_ND)) if row_N is None else row_N
    return IndexedPhotos([str(row) for row in row_N], vectors_ND, row_N, generation)


def naive(query_QD: np.ndarray, vectors_ND: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    score_QN = query_QD.astype(np.float64) @ vectors_ND.T.astype(np.float64)
    order_QK = np.argsort(-score_QN, axis=1)[:, :k]
    return np.take_along_axis(score_QN, order_QK, 1), order_QK


def agrees(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    assert np.array_equal(found[1], expected[1])


@pytest.mark.parametrize(("queries", "k"), [(1, 1), (3, 20), (40, 500)])
def test_flat_is_exact(tmp_path: Path, queries: int, k: int):
    vectors_ND, query_QD = unit_rows(500), unit_rows(queries, seed=1)
    found = build_ranking(photos_of(vectors_ND), tmp_path, RankingOptions())(query_QD, k)
    agrees(found, naive(query_QD, vectors_ND, k))


def test_flat_reads_a_mapped_file(tmp_path: Path):
    unit_rows(100).tofile(tmp_path / "rows")
    mapped_ND = np.memmap(tmp_path / "rows", "<f4", "r", shape=(100, DIM))
    query_QD = unit_rows(2, seed=1)
    agrees(build_ranking(photos_of(mapped_ND), tmp_path, RankingOptions())(query_QD, 5), naive(query_QD, mapped_ND, 5))


def inverted(photos: IndexedPhotos, folder: Path, share: float = 1.0) -> ranking.Ranking:
    return build_ranking(photos, folder, RankingOptions("ivf", share))


@pytest.mark.parametrize("k", [1, 20, 3000])
def test_looking_into_all_lists_is_exact(tmp_path: Path, k: int):
    vectors_ND, query_QD = unit_rows(3000), unit_rows(5, seed=1)
    agrees(inverted(photos_of(vectors_ND), tmp_path)(query_QD, k), naive(query_QD, vectors_ND, k))


def test_looking_into_some_lists_finds_most(tmp_path: Path):
    centres = unit_rows(30, seed=2)
    vectors_ND = np.repeat(centres, 100, axis=0) + 0.1 * unit_rows(3000)
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    score_QK, position_QK = inverted(photos_of(vectors_ND), tmp_path, 0.2)(centres, 20)
    expected_QK = naive(centres, vectors_ND, 20)[1]
    kept = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(position_QK, expected_QK, strict=True)])
    assert kept > 0.95
    exact_QK = np.einsum("qd,qkd->qk", centres, vectors_ND[position_QK])
    np.testing.assert_allclose(score_QK, exact_QK, atol=1e-6)


def test_too_few_in_the_lists_is_said_with_minus_one(tmp_path: Path):
    score_QK, position_QK = inverted(photos_of(unit_rows(3000)), tmp_path, 1e-6)(unit_rows(1, seed=1), 2000)
    missing_QK = position_QK < 0
    assert missing_QK.any() and not missing_QK[:, :5].any()
    assert np.isneginf(score_QK[missing_QK]).all() and np.isfinite(score_QK[~missing_QK]).all()


def test_lists_are_kept_while_photos_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    vectors_RD, query_QD = unit_rows(3000), unit_rows(5, seed=1)
    inverted(photos_of(vectors_RD[:2000]), tmp_path)
    monkeypatch.setattr(ranking, "_new_lists", None)
    written = (tmp_path / "lists.npz").stat().st_mtime_ns
    inverted(photos_of(vectors_RD[:2000]), tmp_path)
    assert (tmp_path / "lists.npz").stat().st_mtime_ns == written
    row_N = np.flatnonzero(np.arange(3000) % 7)
    some_ND = vectors_RD[row_N]
    agrees(inverted(photos_of(some_ND, row_N), tmp_path)(query_QD, 20), naive(query_QD, some_ND, 20))
    other_ND = unit_rows(2500, seed=3)
    again = inverted(photos_of(other_ND, generation=1), tmp_path)
    agrees(again(query_QD, 20), naive(query_QD, other_ND, 20))
    with pytest.raises(TypeError):  # more than twice as many photos want new centres, which are switched off here
        inverted(photos_of(unit_rows(5000)), tmp_path)


@pytest.mark.parametrize("damage", ["garbage", "pickle", "cut", "list out of range", "not a number", "missing"])
def test_damaged_lists_are_computed_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture):
    vectors_ND, query_QD = unit_rows(1000), unit_rows(2, seed=1)
    path = tmp_path / "lists.npz"
    inverted(photos_of(vectors_ND), tmp_path)
    with np.load(path) as arrays:
        arrays = dict(arrays)
    if damage == "garbage":
        path.write_bytes(b"garbage")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "missing":
        del arrays["list_R"]
        np.savez(path, **arrays)
    else:
        wrong = {
            "pickle": {"centres_LD": np.array([print], dtype=object)},
            "list out of range": {"list_R": arrays["list_R"] + 10**6},
            "not a number": {"centres_LD": arrays["centres_LD"] * np.nan},
        }[damage]
        np.savez(path, **{**arrays, **wrong})
    agrees(inverted(photos_of(vectors_ND), tmp_path)(query_QD, 5), naive(query_QD, vectors_ND, 5))
    with np.load(path) as repaired:
        assert np.array_equal(repaired["centres_LD"], arrays["centres_LD"])


def test_a_few_photos_only(tmp_path: Path):
    vectors_ND = unit_rows(3)
    score_QK, position_QK = inverted(photos_of(vectors_ND), tmp_path)(vectors_ND[:1], 3)
    assert position_QK[0, 0] == 0 and score_QK[0, 0] == pytest.approx(1, abs=1e-6)
