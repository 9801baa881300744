"""The training loader alone: pairs per second from loose JPEG files, from shards, and from shards resized on import.

The files are those of ``benchmarks.data``. All forms are timed in turn in this process, as the training loop gets its
batches, without the work on the device: per worker without any loader process, in total from ``--workers`` processes.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from prettytable import PrettyTable

from benchmarks.data import FIELDS, SIZE, LeftAlone, compare, draw_files, epochs_of
from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.shards.importing import import_shards
from datasets.shards.options import ShardOptions
from datasets.shards.pairs import ShardFolders, ShardPairs
from datasets.shards.plan import ImportOptions
from model.backbones import BackboneOptions, load_backbone
from model.retriever import Retriever

CONSUMER, CORES = 2400, 16
"""pairs per second of a fast GPU, and the cores beside it"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="JPEG files, with two captions each")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the total")
    parser.add_argument("--rounds", type=int, default=5, help="timed epochs of each form, the median counts")
    args = parser.parse_args()

    form = Retriever(load_backbone(BackboneOptions("tiny", SIZE))).input_format(77)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "imgs").mkdir()
        records = draw_files(folder / "imgs", args.images)
        annotation = folder / "caption.json"
        annotation.write_text(json.dumps({record.path.name: record.captions for record in records}))
        more = (FIELDS, (), AugmentOptions(img_aug=True), 1)
        pairs = {"loose files": TrainPairs(records, Images(SIZE), form, *more)}
        for label, resize in (("shards", None), ("shards, resized on import", SIZE)):
            options = ImportOptions("ham", (annotation,), folder / "imgs", resize=resize)
            folders = ShardFolders([import_shards(options, folder / label, 2)])
            pairs[label] = ShardPairs(folders, ShardOptions(), Images(SIZE), form, *more)
        results = {}
        for workers in (0, args.workers):
            forms = {}
            for label, each in pairs.items():
                each.views = {"images": LeftAlone(flip=True, vary=True)}
                data = DataOptions(batch_size=args.batch_size, num_workers=workers)
                forms[label] = epochs_of(TrainLoader(each, data, torch.device("cpu")))
            results[workers] = compare(forms, args.rounds)

    table = PrettyTable(["pairs/s", "per worker", f"{args.workers} workers", f"cores for {CONSUMER} pairs/s"])
    table.align["pairs/s"] = "l"
    for label in pairs:
        single, total = results[0][label], results[args.workers][label]
        table.add_row([label, f"{single:.0f}", f"{total:.0f}", f"{CONSUMER / single:.1f} of {CORES}"])
    print(table)
    print(f"ratio shards {results[0]['shards'] / results[0]['loose files']:.2f}")
    print(f"ratio shards_total {results[args.workers]['shards'] / results[args.workers]['loose files']:.2f}")


if __name__ == "__main__":
    main()
