"""Loader and evaluation split together: the shares of several processes are the batches, and the evaluation, of one."""

from pathlib import Path

import pytest
import torch

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.source import ImageOptions, Images
from datasets.images.verify import prepare_images
from datasets.options import DataOptions
from datasets.rstpreid import load
from model.backbones.clip_tokenizer import shared_tokenizer
from utils.inputs import InputFormat

CPU = torch.device("cpu")
FIELDS = ("images", "caption_ids", "mlm_ids", "mlm_labels", "mlm_positions", "pids", "index")
FORM = InputFormat(shared_tokenizer(), 77, False, (32, 16), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch):
    """Be one of several processes."""

    def become(rank: int, world_size: int) -> None:
        for module in ("datasets.batches.train_pairs", "datasets.batches.evaluation_split"):
            monkeypatch.setattr(f"{module}.rank", lambda: rank)
            monkeypatch.setattr(f"{module}.world_size", lambda: world_size)

    return become


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(("processes", "sampler"), [(2, "random"), (4, "random"), (2, "identity")])
def test_shares_make_up_the_batches(data_root: Path, tmp_path: Path, process, cache, processes, sampler):
    reading, data = ImageOptions(cache=cache, cache_dir=tmp_path), load(data_root, lambda group: group())
    dataset, images = prepare_images(data, (32, 16), reading, data_root, workers=1, splits=("train",))
    options = DataOptions(batch_size=8, num_workers=0, sampler=sampler, num_instance=2, seed=3)

    def batches() -> list[dict[str, torch.Tensor]]:
        augment = AugmentOptions(img_aug=True, txt_aug=True)
        pairs = TrainPairs(dataset.train[:17], images, FORM, FIELDS, FIELDS, augment, options.seed)
        loader = TrainLoader(pairs, options, CPU)
        loader.seek(2, 1)
        done = list(loader)
        assert loader.place == (2, len(done) + 1, len(done) + 1)
        return done

    whole, shares = batches(), []
    for rank in range(processes):
        process(rank, processes)
        shares.append(batches())
        assert len(shares[-1]) == len(whole)
    if sampler == "random":
        assert len(whole[-1]["index"]) == 34 % 8 == 2, "some shares of the last batch are meant to be empty"
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        for name in set(batch) - {"mlm_positions", "share_bounds"}:
            assert torch.equal(torch.cat([part[name] for part in parts]), batch[name]), name
        sizes = torch.tensor([0, *(len(part["index"]) for part in parts)])
        for part in parts:
            assert part["share_bounds"].tolist() == sizes.cumsum(0).tolist()
            assert torch.equal(part["mlm_labels"].flatten().nonzero()[:, 0], part["mlm_positions"])


@pytest.mark.parametrize("processes", [2, 5])
def test_every_image_and_caption_is_encoded_in_one_process(data_root: Path, process, processes: int):
    records = load(data_root, lambda group: group()).test

    def make_split() -> EvaluationSplit:
        options = DataOptions(test_batch_size=4, num_workers=0)
        return EvaluationSplit("test", records, Images((32, 16)), FORM, options, CPU)

    whole = make_split()
    pixels = torch.cat(list(whole.image_batches()))
    images, captions = [], []
    for rank in range(processes):
        process(rank, processes)
        share = make_split()
        assert torch.equal(torch.cat([pixels[:0], *share.image_batches()]), pixels[share.gallery_positions])
        images += share.gallery_positions.tolist()
        captions += [position for positions, _, _ in share.text_batches() for position in positions.tolist()]
    assert sorted(images) == list(range(len(records)))
    assert sorted(captions) == list(range(len(whole.query_pids)))
