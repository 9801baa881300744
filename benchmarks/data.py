"""The training loader alone: pairs per second from JPEG files and from ``--cache``, per worker and in total.

The files have the sizes of the field's benchmarks, 60x160 to 150x400 pixels. ``plain`` is the usual loader: every
sample opened, resized, augmented and normalised on its own by torchvision, its caption masked in a Python loop. All
are timed in turn in this process. Per worker: without any loader process. In total: as the training loop gets its
batches, from ``--workers`` processes. What is left to do on the device (flip, crop, erase, normalise) is timed by
itself.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from prettytable import PrettyTable
from torch.utils.data import DataLoader
from torchvision import transforms

from datasets.augmentation import view_named
from datasets.augmentation.irra import IRRAView
from datasets.augmentation.pixels import Colour
from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.source import ImageOptions
from datasets.images.verify import prepare_images
from datasets.options import DataOptions
from datasets.records import Dataset, ImageRecord
from model.backbones import BackboneOptions, load_backbone
from model.retriever import Retriever
from utils.inputs import InputFormat

SIZE = (384, 128)
FIELDS = ("images", "mlm_ids", "mlm_labels", "mlm_positions", "pids")
"""what IRRA reads"""
CONSUMER, CORES = 3000, 16
"""pairs per second of a fast GPU, and the cores beside it"""
WORDS = ("a", "man", "woman", "wearing", "black", "white", "red", "jacket", "shirt", "shoes", "with", "and", "bag")


def draw_files(folder: Path, number: int) -> tuple[ImageRecord, ...]:
    """JPEG files with soft shapes and grain, two captions of about 29 tokens each."""
    rng = np.random.default_rng(0)
    records = []
    for index in range(number):
        width = int(rng.integers(60, 151))
        height = round(width * 8 / 3)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 9, 3), dtype=np.uint8)).resize((width, height))
        pixels = np.asarray(coarse).astype(np.int16) + rng.integers(-12, 13, (height, width, 3), dtype=np.int16)
        path = folder / f"{index:06d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        captions = tuple(" ".join(rng.choice(WORDS, int(rng.integers(18, 37)))) for _ in range(2))
        records.append(ImageRecord(index // 2, index, path, captions))
    return tuple(records)


class PlainPairs(torch.utils.data.Dataset):
    """The usual data set of the field, sample by sample."""

    def __init__(self, records: tuple[ImageRecord, ...], form: InputFormat) -> None:
        self.pairs = [(record, caption) for record in records for caption in record.captions]
        self.tokens_NL = form.tokenizer([caption for _, caption in self.pairs], form.text_length).ids
        self.mask_id = form.tokenizer.mask_id
        self.transform = transforms.Compose(
            [
                transforms.Resize(SIZE),
                transforms.RandomHorizontalFlip(0.5),
                transforms.Pad(10),
                transforms.RandomCrop(SIZE),
                transforms.ToTensor(),
                transforms.Normalize(form.pixel_mean, form.pixel_std),
                transforms.RandomErasing(scale=(0.02, 0.4), value=form.pixel_mean),
            ]
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        record = self.pairs[index][0]
        image = self.transform(Image.open(record.path).convert("RGB"))
        tokens, labels = self.tokens_NL[index].tolist(), []
        for position, token in enumerate(tokens):
            chosen = 0 < token < self.mask_id and random.random() < 0.15
            labels.append(token if chosen else 0)
            if chosen:
                fate = random.random()
                other = random.randrange(1, self.mask_id) if fate < 0.9 else token
                tokens[position] = self.mask_id if fate < 0.8 else other
        return {
            "images": image,
            "mlm_ids": torch.tensor(tokens),
            "mlm_labels": torch.tensor(labels),
            "pids": record.pid,
        }


class LeftAlone(IRRAView):
    """A view whose work on the device, which is timed by itself, is left out."""

    def apply(self, images: torch.Tensor, numbers: torch.Tensor, mean: Colour, std: Colour) -> torch.Tensor:
        """The pixels as they are."""
        return images


def epochs_of(loader: TrainLoader) -> Iterator[Iterator[dict]]:
    """One epoch after another."""
    number = 0
    while True:
        number += 1
        loader.seek(number)
        yield iter(loader)


def plain_epochs(loader: DataLoader) -> Iterator[Iterator[dict]]:
    """One epoch after another."""
    while True:
        yield iter(loader)


def pairs_per_second(epochs: Iterator[Iterator[dict]]) -> float:
    """Of one epoch, from the arrival of its first batch on: starting processes is not what is measured."""
    batches = next(epochs)
    next(batches)
    start, pairs = time.perf_counter(), 0
    for batch in batches:
        pairs += len(batch["pids"])
    return pairs / (time.perf_counter() - start)


def compare(forms: dict[str, Iterator[Iterator[dict]]], rounds: int) -> dict[str, float]:
    """Median pairs per second of each form, in turns, after one turn to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name, epochs in forms.items():
            rate = pairs_per_second(epochs)
            if number:
                rates[name].append(rate)
    return {name: statistics.median(found) for name, found in rates.items()}


def device_rate(pixels: torch.Tensor, form: InputFormat, device: torch.device, rounds: int) -> float:
    """Images per second of flipping, cropping, erasing and normalising on the device of this machine."""
    wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    view, rng = view_named("irra"), np.random.default_rng(0)
    numbers = torch.from_numpy(np.stack([view.draw(rng, SIZE, SIZE) for _ in pixels]))
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        view.apply(pixels.to(device, non_blocking=True), numbers, form.pixel_mean, form.pixel_std)
        wait()
        times.append(time.perf_counter() - start)
    return len(pixels) / statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="JPEG files, with two captions each")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the total")
    parser.add_argument("--rounds", type=int, default=5, help="timed epochs of each form, the median counts")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    form = Retriever(load_backbone(BackboneOptions("tiny", SIZE))).input_format(77)
    with tempfile.TemporaryDirectory() as folder:
        records = draw_files(Path(folder), args.images)
        dataset = Dataset("drawn", records, (), ())
        plain, sources = PlainPairs(records, form), {}
        for name, cache in (("jpeg", False), ("cache", True)):
            reading = ImageOptions(cache=cache)
            _, sources[name] = prepare_images(dataset, SIZE, reading, Path(folder), workers=2, splits=("train",))

        def loader_of(name: str, workers: int) -> TrainLoader:
            options = DataOptions(batch_size=args.batch_size, num_workers=workers)
            pairs = TrainPairs(records, sources[name], form, FIELDS, (), AugmentOptions(img_aug=True), options.seed)
            pairs.views = {"images": LeftAlone(flip=True, vary=True)}
            return TrainLoader(pairs, options, torch.device("cpu"))

        results = {}
        for workers in (0, args.workers):
            usual = DataLoader(plain, args.batch_size, True, num_workers=workers, persistent_workers=workers > 0)
            forms = {"plain": plain_epochs(usual)}
            forms |= {name: epochs_of(loader_of(name, workers)) for name in sources}
            results[workers] = compare(forms, args.rounds)
        on_device = device_rate(next(iter(loader_of("cache", 0)))["images"], form, device, args.rounds)

    table = PrettyTable(["pairs/s", "per worker", f"{args.workers} workers"])
    for name in results[0]:
        table.add_row([name, f"{results[0][name]:.0f}", f"{results[args.workers][name]:.0f}"])
    print(f"{args.images} JPEG files, batches of {args.batch_size}, {SIZE[0]}x{SIZE[1]}")
    print(table)
    print(f"views of a batch on the device: {on_device:.0f} pairs/s")
    per_worker = results[args.workers]["cache"] / args.workers
    print(
        f"{CONSUMER} pairs/s on {CORES} cores: {CONSUMER / per_worker:.1f} workers with --cache, "
        f"{CONSUMER / (results[args.workers]['jpeg'] / args.workers):.1f} without"
    )
    for name in ("plain", "jpeg"):
        print(f"ratio cache_vs_{name}_per_worker {results[0]['cache'] / results[0][name]:.2f}")
        print(f"ratio cache_vs_{name}_total {results[args.workers]['cache'] / results[args.workers][name]:.2f}")


if __name__ == "__main__":
    main()
