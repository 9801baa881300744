"""Our streamed metrics against the plain form: the whole similarity matrix, sorted, with cumulative sums.

``every`` is ours with the metrics that a table shows on request, mSD among them.

All are timed in turn in this process; the peak memory is that of a process of its own, beyond what the features take
(on a CPU, only Linux tells it). ``--encode`` times what comes before: a gallery and its captions through ViT-B/16 at
384x128, with ``--precision auto`` and captions by length, against float32 and captions of 77 tokens.

Shapes: Q queries, G gallery entries, D feature size.
"""

import argparse
import multiprocessing
import random
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from prettytable import PrettyTable
from torch.nn.functional import normalize

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from model.backbones import BackboneOptions, load_backbone
from model.retriever import Retriever
from processor.evaluator import encode_split
from processor.metrics import EXTRA_METRICS, METRICS
from processor.metrics.ranks import retrieval_metrics
from utils.device import DeviceOptions, Precision, pick_precision

SIZES = {"cuhk": (6156, 3074, 1000), "icfg": (19848, 19848, 1000), "large": (100_000, 100_000, 5000)}
"""captions, images, identities"""
NOISE = {"random": 1000.0, "trained": 3.0}
"""standard deviation of the features around their identity's centre, whose own is 1: chance level, or R1 of about 50"""
DIM = 512


def draw(size: str, kind: str, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query and gallery features and their identities, in place, so that nothing else raises the peak memory."""
    *numbers, identities = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(identities, DIM, generator=generator)
    features, pids = [], []
    for number in numbers:
        pids.append(torch.arange(number)[torch.randperm(number, generator=generator)] % identities)
        features.append(torch.randn(number, DIM, generator=generator).mul_(NOISE[kind]))
        for part, part_pids in zip(features[-1].split(1000), pids[-1].split(1000), strict=True):
            part += centres[part_pids]
    return tuple(tensor.to(device) for tensor in (*features, *pids))


def plain_metrics(query_features, gallery_features, query_pids, gallery_pids):
    """The form that the field's code has in common."""
    similarity_QG = normalize(query_features) @ normalize(gallery_features).T
    order_QG = similarity_QG.argsort(dim=1, descending=True)
    match_QG = gallery_pids[order_QG] == query_pids[:, None]
    hits_QG = match_QG.cumsum(1)
    result = {f"R{k}": 100 * (hits_QG[:, k - 1] > 0).float().mean().item() for k in (1, 5, 10)}
    precision_QG = hits_QG / torch.arange(1, match_QG.shape[1] + 1, device=match_QG.device)
    result["mAP"] = 100 * ((precision_QG * match_QG).sum(1) / match_QG.sum(1)).mean().item()
    last = [match_G.nonzero()[-1] for match_G in match_QG]
    result["mINP"] = 100 * torch.cat([row[at] for row, at in zip(precision_QG, last, strict=True)]).mean().item()
    return result


def every_metric(*inputs):
    """Ours, with the metrics that a table shows on request."""
    return retrieval_metrics(*inputs, metrics=METRICS | EXTRA_METRICS)


FORMS = {"ours": retrieval_metrics, "every": every_metric, "plain": plain_metrics}


def seconds(form: str, inputs) -> tuple[float, dict[str, float]]:
    """One timed call; both forms end with numbers on the host, so nothing is left running."""
    start = time.perf_counter()
    result = FORMS[form](*inputs)
    return time.perf_counter() - start, result


def _peak_mib() -> float:
    """Peak resident memory of this process; not from getrusage, whose figure a new process inherits from its parent."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10


def _measure_peak(form: str, size: str, kind: str, device: str, connection) -> None:
    inputs = draw(size, kind, device)
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        spent, _ = seconds(form, inputs)
        connection.send((spent, (torch.cuda.max_memory_allocated() - before) / 2**20))
        return
    inputs[0][:64] @ inputs[1][:64].T  # the matrix library's own buffers are no part of it
    before = _peak_mib()
    spent, _ = seconds(form, inputs)
    connection.send((spent, _peak_mib() - before))


def peak(form: str, size: str, kind: str, device: str) -> tuple[float, float]:
    """(seconds of a first call, MiB of extra memory) in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure_peak, args=(form, size, kind, device, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"{form} on {size} ended without a result: too little memory?") from None
    finally:
        process.join()


def compare(size: str, kind: str, forms: list[str], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each form, called in turn; their results have to agree."""
    inputs = draw(size, kind, device)
    times, results = {form: [] for form in forms}, {}
    for _ in range(rounds):
        for form in forms:
            spent, results[form] = seconds(form, inputs)
            times[form].append(spent)
    for form in forms:
        for name, value in results["ours"].items():
            assert abs(value - results[form][name]) < 1e-2, (form, name, value, results[form][name])
    return {form: statistics.median(spent) for form, spent in times.items()}


class DrawnImages(Images):
    """Random pixels in place of files."""

    cached = True

    def __init__(self, number: int, size: tuple[int, int]) -> None:
        super().__init__(size)
        self._pixels = torch.randint(0, 256, (number, 3, *size), dtype=torch.uint8)

    def read_batch(self, paths: Sequence[Path], pin_memory: bool) -> torch.Tensor:
        return self._pixels[: len(paths)]


def encoding(device: str, number: int, rounds: int) -> tuple[PrettyTable, list[str]]:
    """Median rates of both towers in both forms, called in turn on ``number`` images and captions; table and ratios."""
    flags = DataOptions(test_batch_size=max(number // 4, 1), num_workers=0)
    auto = pick_precision(DeviceOptions(device=device))
    size = (384, 128)
    backbone = load_backbone(BackboneOptions("random-ViT-B/16", size))
    rng = random.Random(0)
    captions = tuple(" ".join(rng.choices(("a", "man", "in", "black"), k=rng.randint(17, 37))) for _ in range(number))
    # one image beside all captions, one caption beside all images: each tower by itself
    towers = {
        "captions": [ImageRecord(0, 0, Path("0.jpg"), captions)],
        "images": [ImageRecord(row, row, Path(f"{row}.jpg"), ("a man",) * (row == 0)) for row in range(number)],
    }
    models = {"ours": Retriever(backbone, precision=auto)}
    models["plain"] = Retriever(backbone, precision=Precision(auto.device, torch.float32))
    images, times = DrawnImages(number, size), {}
    for turn in range(rounds + 1):
        for form, model in models.items():
            inputs = model.input_format(77)._replace(reads_padding=form == "plain")
            for tower, records in towers.items():
                split = EvaluationSplit("drawn", records, images, inputs, flags, auto.device)
                start = time.perf_counter()
                encode_split(model, split).text_QD[0, 0].item()
                if turn:
                    times.setdefault((tower, form), []).append(number / (time.perf_counter() - start))
    rates = {key: statistics.median(found) for key, found in times.items()}
    table = PrettyTable(["encoded per second", *models])
    table.add_rows([[tower, *(f"{rates[tower, form]:.1f}" for form in models)] for tower in ("images", "captions")])
    ratios = [f"ratio encode_{t} {rates[t, 'ours'] / rates[t, 'plain']:.2f}" for t in ("images", "captions")]
    return table, [f"ours: {auto}", *ratios]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each form, the median counts (default 5)")
    parser.add_argument(
        "--plain_icfg", action="store_true", help="the plain form at ICFG-PEDES' size, too: about 15 GB"
    )
    parser.add_argument("--large", action="store_true", help="also 100,000 x 100,000, ours only: minutes on a CPU")
    parser.add_argument("--encode", type=int, metavar="N", help="only time the towers, on N images and N captions")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    args = parser.parse_args()

    if args.encode:
        rates, lines = encoding(args.device, args.encode, args.rounds)
        print(rates, *lines, sep="\n")
        return
    table = PrettyTable(["size", "features", "form", "seconds", "extra memory, MiB"])
    ratios = []
    runs = [("cuhk", "random"), ("cuhk", "trained"), ("icfg", "random"), ("icfg", "trained")]
    for size, kind in runs:
        forms = ["ours", "every", *["plain"] * (size == "cuhk" or args.plain_icfg)]
        times = compare(size, kind, forms, args.rounds, args.device)
        for form in forms:
            memory = peak(form, size, kind, args.device)[1]
            table.add_row([size, kind, form, f"{times[form]:.3f}", f"{memory:.0f}"])
        ratios.append(f"ratio every_metric_{size}_{kind} {times['every'] / times['ours']:.2f}")
        if "plain" in times:
            ratios.append(f"ratio evaluate_{size}_{kind} {times['plain'] / times['ours']:.2f}")
    if args.large:
        spent, memory = peak("ours", "large", "trained", args.device)
        table.add_row(["large", "trained", "ours", f"{spent:.1f}", f"{memory:.0f}"])
    print(f"{args.device}, {torch.get_num_threads()} threads, {DIM}-d; queries, gallery, identities: {SIZES}")
    print(table)
    print("\n".join(ratios))


if __name__ == "__main__":
    main()
