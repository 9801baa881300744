"""Similarities of queries with a gallery, block by block: queries x gallery is never held at once.

Shapes: Q queries, G gallery entries, D feature size; B queries make a block; the gallery is split in C chunks of W
entries.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm

from utils import UserError
from utils.log import hide_bar

CHUNK = 256
"""gallery entries that share one threshold per match (W)"""

BLOCK_ELEMENTS = (1 << 27, 1 << 24)
"""similarities held at once: on a GPU (512 MiB), and by each thread of a CPU (64 MiB)"""


@contextmanager
def full_float32() -> Iterator[None]:
    """Switch off what makes float32 products on some devices faster but coarser: scores decide ranks here."""
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@full_float32()
@torch.no_grad()
def for_each_block(query_features: Tensor, gallery_features: Tensor, work: "Work", block: int | None = None) -> None:
    """Call ``work`` with blocks of cosine similarities in float32, so that queries x gallery is never held at once.

    Args:
        query_features: (Q, D), any float type; L2-normalised here, in float32.
        gallery_features: (G, D), on the same device.
        work: gets the place of a block's first query and the block's similarities (B, G), which it may overwrite;
            on a CPU several threads call it at a time.
        block: queries in a block; by default as many as fit 64 MiB of similarities (GPU: 512 MiB).

    Raises:
        ValueError: shapes that do not fit, empty input, features that are not finite.
    """
    size = len(gallery_features)
    everyone = torch.arange(len(query_features), device=query_features.device)

    def on_gallery(start: int, similarity_BG: Tensor) -> None:
        work(start, similarity_BG[:, :size])

    walk_blocks(cosine(query_features, gallery_features), everyone, size, block, on_gallery)


def check_features(query_features: Tensor, gallery_features: Tensor) -> None:
    """Raise a ValueError where features are not floats of shapes (Q, D) and (G, D)."""
    for name, features in (("query", query_features), ("gallery", gallery_features)):
        if features.ndim != 2 or not features.is_floating_point():
            found = f"{features.dtype} {tuple(features.shape)}"
            raise ValueError(f"{name} features are {found}: expected floats of shape (number, size)")
        if not len(features):
            raise ValueError(f"there are no {name} features")
    if query_features.shape[1] != gallery_features.shape[1]:
        sizes = query_features.shape[1], gallery_features.shape[1]
        raise ValueError("query features have size {}, gallery features {}".format(*sizes))


Similarity = Callable[[Tensor, Tensor], None]
"""writes the similarities of the query rows (B,) into the front columns of a buffer (B, C * W)"""


def cosine(query_features: Tensor, gallery_features: Tensor) -> Similarity:
    """Cosine similarities in float32, also under autocast."""
    check_features(query_features, gallery_features)
    query_norm_Q = _norms(query_features, "query")
    gallery_norm_G = _norms(gallery_features, "gallery")
    # Zero rows fill the last chunk: no entry sits at the edge of a matrix product, where other kernels may round
    # differently, so equal gallery features get equal similarities.
    size = len(gallery_features)
    gallery_GD = gallery_features.new_zeros((_padded(size), gallery_features.shape[1]), dtype=torch.float32)
    gallery_GD[:size] = gallery_features
    gallery_GD[:size] /= gallery_norm_G[:, None]

    def similarity(rows_B: Tensor, out_BG: Tensor) -> None:
        query_BD = query_features[rows_B].float() / query_norm_Q[rows_B, None]
        with torch.autocast(out_BG.device.type, enabled=False):
            torch.mm(query_BD, gallery_GD.T, out=out_BG)

    return similarity


def _norms(features: Tensor, name: str) -> Tensor:
    norm = torch.linalg.vector_norm(features.float(), dim=1)
    bad = (~norm.isfinite()).nonzero().flatten()
    if len(bad):
        raise UserError(f"{name} features: row {int(bad[0])} is not finite ({len(bad)} such rows)")
    return norm.clamp_min(1e-12)


def _divide_up(total: int, parts: int) -> int:
    return -(-total // parts)


def _padded(size: int) -> int:
    return _divide_up(size, CHUNK) * CHUNK


Work = Callable[[int, Tensor], None]
"""takes the place of a block's first query and the block's similarities (B, C * W), -inf beyond the gallery"""


def walk_blocks(similarity: Similarity, rows_Q: Tensor, size: int, block: int | None, work: Work) -> None:
    """Walk over the queries ``rows_Q`` in blocks.

    On a CPU each thread takes whole blocks and is alone in them. Sharing out every single comparison is slower, and by
    far so when another program wants the same cores, since each of the many small steps waits for the last thread.
    """
    if block is not None and block < 1:
        raise ValueError(f"block is {block}: at least one query is needed")
    device, width, queries = rows_Q.device, _padded(size), len(rows_Q)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    block = block or max(1, BLOCK_ELEMENTS[device.type == "cpu"] // width)
    block = _divide_up(queries, _divide_up(queries, block * threads) * threads)
    starts = iter(range(0, queries, block))  # shared: a thread that is done takes the next

    bar = tqdm(total=queries, desc="ranking", unit="query", leave=False, disable=hide_bar(), delay=1)

    @torch.no_grad()
    def run(_: int) -> None:
        buffer_BG = torch.empty((block, width), device=device)
        for start in starts:
            rows_B = rows_Q[start : start + block]
            similarity_BG = buffer_BG[: len(rows_B)]
            similarity(rows_B, similarity_BG)
            similarity_BG[:, size:] = -torch.inf
            work(start, similarity_BG)
            bar.update(len(rows_B))

    if threads == 1:
        with bar:
            run(0)
        return
    torch.set_num_threads(1)  # holds for threads that start from here on
    try:
        with bar, ThreadPoolExecutor(threads) as pool:
            try:
                list(pool.map(run, range(threads)))
            finally:
                list(starts)  # after an error or an interrupt no thread begins another block
    finally:
        torch.set_num_threads(threads)
