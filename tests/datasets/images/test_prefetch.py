"""Pixels read ahead from the cache: the same batches as from loader processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.decode import ImageError
from datasets.images.prefetch import prefetched
from datasets.images.source import ImageOptions, Images
from datasets.images.verify import prepare_images
from datasets.options import DataOptions
from datasets.records import Dataset, ImageRecord
from model.backbones.clip_tokenizer import shared_tokenizer
from utils.inputs import InputFormat

CPU = torch.device("cpu")
SIZE = (24, 12)
FORM = InputFormat(shared_tokenizer(), 77, False, SIZE, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    records = []
    for index in range(11):
        path = tmp_path / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (30, 15, 3), dtype=np.uint8)).save(path)
        records.append(ImageRecord(index // 2, index, path, ("a man in red", "someone")))
    return Dataset("drawn", tuple(records), (), ())


def source(dataset: Dataset, folder: Path, cache: bool) -> Images:
    return prepare_images(dataset, SIZE, ImageOptions(cache=cache), folder, workers=1, splits=("train",))[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_cache_gives_the_batches_of_the_files(dataset: Dataset, tmp_path: Path, workers: int):
    options = DataOptions(batch_size=5, num_workers=workers)
    batches = []
    for cache in (False, True):
        fields = ("images", "caption_ids", "index")
        images, augment = source(dataset, tmp_path, cache), AugmentOptions(img_aug=True)
        pairs = TrainPairs(dataset.train, images, FORM, fields, (), augment, options.seed)
        loader = TrainLoader(pairs, options, CPU)
        loader.seek(2, 1)
        batches.append(list(loader))
    plain, cached = batches
    assert len(plain) == len(cached) == 4
    for expected, batch in zip(plain, cached, strict=True):
        assert batch.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(batch[name], value), name


def test_the_gallery_keeps_its_order(dataset: Dataset, tmp_path: Path):
    options = DataOptions(test_batch_size=4, num_workers=0)
    plain, cached = (
        EvaluationSplit("train", dataset.train, source(dataset, tmp_path, cache), FORM, options, CPU)
        for cache in (False, True)
    )
    expected, pixels = (torch.cat(list(split.image_batches())) for split in (plain, cached))
    assert torch.equal(pixels, expected)
    assert len(pixels) == len(dataset.train)


def test_an_error_comes_at_the_turn_of_its_batch_and_nothing_is_read_for_nobody():
    asked = []

    def pixels_of(number: int) -> torch.Tensor:
        asked.append(number)
        if number == 2:
            raise ImageError("2.jpg: gone")
        return torch.full((1,), number)

    seen = []
    with pytest.raises(ImageError, match="2.jpg"):
        for number, pixels in prefetched(range(1000), pixels_of):
            seen.append((number, int(pixels)))
    assert seen == [(0, 0), (1, 1)]
    assert len(asked) < 10
