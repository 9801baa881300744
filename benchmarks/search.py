"""What a query costs on an indexed gallery, and what inverted lists save and miss.

The features are drawn: photos in many loose clusters, queries near photos but off to one side, as sentences are. All
forms are timed in turn in this process. ``product`` is numpy's matrix product with a partial sort. The sentence is
encoded by a text tower with random weights, of the architecture that is named.

Shapes: N photos, Q queries, K hits, D embedding.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from prettytable import PrettyTable

from gallery.index import EncodedPhotos, GalleryIndex, IndexedPhotos
from gallery.options import RankingOptions
from gallery.ranking import build_ranking
from gallery.searcher import Searcher
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.feature_encoder import FeatureEncoder
from model.retriever import Retriever
from utils.device import DeviceOptions, pick_precision

QUERY = "a woman in a red coat with a white handbag and black boots walks to the left"


def draw(photos: int, queries: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1: a photo is a cluster plus noise; a query is a photo plus noise and a shift common to all."""
    generator = np.random.default_rng(0)

    def noise(rows: int, scale: float) -> np.ndarray:
        drawn = generator.standard_normal((rows, dim), dtype=np.float32)
        drawn *= scale * dim**-0.5
        return drawn

    clusters_CD = noise(max(photos // 20, 1), 1)
    vectors_ND = np.empty((photos, dim), np.float32)
    for start in range(0, photos, 10_000):
        part_BD = vectors_ND[start : start + 10_000]
        part_BD[:] = clusters_CD[generator.integers(0, len(clusters_CD), len(part_BD))] + noise(len(part_BD), 0.7)
        part_BD /= np.linalg.norm(part_BD, axis=1, keepdims=True)
    query_QD = vectors_ND[generator.integers(0, photos, queries)] + noise(queries, 0.6) + noise(1, 0.8)
    return vectors_ND, query_QD / np.linalg.norm(query_QD, axis=1, keepdims=True)


def seconds_of(forms: dict[str, Callable[[np.ndarray], object]], query_QD: np.ndarray) -> dict[str, float]:
    """Median seconds for one query, over all queries, the forms in turn, after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(len(query_QD)):
        for name, form in forms.items():
            start = time.perf_counter()
            form(query_QD[number : number + 1])
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(spent) for name, spent in times.items()}


def plain(query_QD: np.ndarray, vectors_ND: np.ndarray, k: int) -> np.ndarray:
    """Positions of the best k by one matrix product."""
    score_N = vectors_ND @ query_QD[0]
    best_K = np.argpartition(-score_N, k)[:k]
    return best_K[np.argsort(-score_N[best_K])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000, help="size of the gallery")
    parser.add_argument("--queries", type=int, default=50, help="timed queries")
    parser.add_argument("--dim", type=int, default=512, help="embedding size of the drawn features")
    parser.add_argument("--k", type=int, default=20, help="photos per query")
    parser.add_argument("--model", default="random-ViT-B/16", help="architecture of the text tower")
    args = parser.parse_args()

    vectors_ND, query_QD = draw(args.photos, args.queries, args.dim)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number:07d}.jpg" for number in range(args.photos)]
        index = GalleryIndex(Path(folder), {}, args.dim)
        stamps = dict.fromkeys(names, (1, 1))
        start = time.perf_counter()
        index.update(stamps, lambda _: iter([EncodedPhotos(names, vectors_ND, {})]))
        written = time.perf_counter()
        photos: IndexedPhotos = index.read()
        read = time.perf_counter()
        nothing_new = index.changes(stamps)
        compared = time.perf_counter()
        assert not any(nothing_new)
        flat = build_ranking(photos, Path(folder), RankingOptions())
        first = time.perf_counter()
        lists = {"ivf 0.1": build_ranking(photos, Path(folder), RankingOptions("ivf", 0.1))}
        made = time.perf_counter()
        lists["ivf 0.05"] = build_ranking(photos, Path(folder), RankingOptions("ivf", 0.05))
        opened = time.perf_counter()

        forms = {
            "flat": lambda query: flat(query, args.k),
            **{name: lambda query, ivf=ivf: ivf(query, args.k) for name, ivf in lists.items()},
            "product": lambda query: plain(query, vectors_ND, args.k),
        }
        spent = seconds_of(forms, query_QD)
        exact_QK = flat(query_QD, args.k)[1]
        kept = {}
        for name, ivf in lists.items():
            pairs = zip(ivf(query_QD, args.k)[1].tolist(), exact_QK.tolist(), strict=True)
            kept[name] = statistics.mean(len(set(found) & set(exact)) / args.k for found, exact in pairs)
        backbone = load_backbone(BackboneOptions(args.model))
        model = Retriever(backbone, precision=pick_precision(DeviceOptions())).eval()
        encoder = FeatureEncoder(model, model.input_format(77))
        searcher = Searcher(Path(folder), photos, flat, encoder)
        whole = (
            searcher.by_texts if backbone.spec.embed_dim == args.dim else lambda texts, k: encoder.encode_text(texts)
        )
        spent["sentence to ranked names"] = seconds_of({"": lambda _: whole([QUERY], args.k)}, query_QD)[""]

    machine = f"{model.precision}, {torch.get_num_threads()} threads"
    print(f"{args.photos:,} photos, D {args.dim}, K {args.k}, {machine}, {args.model}")
    table = PrettyTable(["one query by", "milliseconds", "of the exact K found"])
    for name, seconds in spent.items():
        table.add_row([name, f"{1000 * seconds:.1f}", f"{100 * kept[name]:.1f} %" if name in kept else ""])
    print(table)
    steps = {"write": written - start, "read": read - written, "find nothing new": compared - read}
    steps |= {"make lists": made - first, "open lists": opened - made}
    print("the index, seconds: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in steps.items()))
    print(f"ratio search_ivf {spent['flat'] / spent['ivf 0.1']:.2f}")
    print(f"ratio search_product {spent['product'] / spent['flat']:.2f}")


if __name__ == "__main__":
    main()
