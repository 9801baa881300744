"""TBPS-CLIP's views of an image: pairs per second of our loader with the views, against torchvision sample by sample.

The files have the sizes of the field's benchmarks. ``plain`` is the usual way: every sample is opened, and each of its
views made of the PIL image by torchvision's transforms, in loader processes. Ours draws numbers in the loader's
processes and changes the pixels of whole batches. Forms take turns in this process; the median of ``--rounds`` epochs
counts.
"""

import argparse
import random
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageFilter
from prettytable import PrettyTable
from torch.utils.data import DataLoader
from torchvision import transforms as T

from benchmarks.data import compare, draw_files, epochs_of, plain_epochs
from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.source import ImageOptions
from datasets.images.verify import prepare_images
from datasets.options import DataOptions
from datasets.records import Dataset, ImageRecord
from model.backbones import BackboneOptions, load_backbone
from model.retriever import Retriever

SIZE = (224, 224)
FIELDS = {
    "simplified (1 view)": ("images", "pids"),
    "full (4 views)": ("images", "images_mvs", "images_ss1", "images_ss2", "pids"),
}
"""image fields of the two presets"""


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


class PlainViews(torch.utils.data.Dataset):
    """Views as the published program makes them: the pool on a float tensor, SimCLR's on the PIL image."""

    def __init__(self, records: tuple[ImageRecord, ...], fields: tuple[str, ...]) -> None:
        self.pairs = [(record, caption) for record in records for caption in record.captions]
        self.fields = [field for field in fields if field != "pids"]
        normalise = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.resize = T.Compose([T.Resize(SIZE), T.ToTensor()])
        self.pool = [
            T.ColorJitter(0.1, 0.1, 0.1),
            T.RandomRotation(15),
            T.RandomResizedCrop(SIZE, (0.9, 1.0), antialias=True),
            T.RandomGrayscale(0.1),
            T.RandomHorizontalFlip(),
            T.RandomErasing(0.5, (0.1, 0.2)),
        ]
        self.simclr = T.Compose(
            [
                T.RandomResizedCrop(SIZE, (0.2, 1.0)),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                T.RandomGrayscale(0.2),
                T.RandomApply([_blurred], 0.5),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                normalise,
            ]
        )
        self.normalise = normalise

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        record = self.pairs[index][0]
        image = Image.open(record.path).convert("RGB")
        views = {field: self.simclr(image) if "_ss" in field else self._pooled(image) for field in self.fields}
        return {**views, "pids": record.pid}

    def _pooled(self, image: Image.Image) -> torch.Tensor:
        pixels = self.resize(image)
        for operation in random.choices(self.pool, k=2):
            pixels = operation(pixels)
        return self.normalise(pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, help="JPEG files, with two captions each")
    parser.add_argument("--batch_size", type=int, default=80)
    parser.add_argument("--workers", type=int, default=2, help="loader processes")
    parser.add_argument("--rounds", type=int, default=5, help="timed epochs of each form, the median counts")
    args = parser.parse_args()

    form = Retriever(load_backbone(BackboneOptions("tiny", SIZE, pixel_statistics="imagenet"))).input_format(77)
    table = PrettyTable(["pairs/s", "plain", "ours, jpeg", "ours, cache", "ratio jpeg", "ratio cache"], align="r")
    with tempfile.TemporaryDirectory() as folder:
        records = draw_files(Path(folder), args.images)
        sources = {}
        for name, cache in (("jpeg", False), ("cache", True)):
            reading = ImageOptions(cache=cache)
            dataset = Dataset("drawn", records, (), ())
            _, sources[name] = prepare_images(dataset, SIZE, reading, Path(folder), workers=2, splits=("train",))
        for preset, fields in FIELDS.items():
            workers = args.workers
            usual = DataLoader(
                PlainViews(records, fields), args.batch_size, True, num_workers=workers, persistent_workers=workers > 0
            )
            forms = {"plain": plain_epochs(usual)}
            options = DataOptions(batch_size=args.batch_size, num_workers=workers)
            for name, images in sources.items():
                pairs = TrainPairs(records, images, form, fields, (), AugmentOptions(augment=("pool",)), options.seed)
                forms[name] = epochs_of(TrainLoader(pairs, options, torch.device("cpu")))
            rates = compare(forms, args.rounds)
            ratios = [f"{rates[name] / rates['plain']:.2f}" for name in sources]
            table.add_row([preset, *(f"{rates[name]:.0f}" for name in forms), *ratios])
    print(f"{args.images} JPEG files, batches of {args.batch_size}, {SIZE[0]}x{SIZE[1]}, {args.workers} workers")
    print(table)


if __name__ == "__main__":
    main()
