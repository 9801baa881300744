"""Pairs out of shards: what loose files would give, numbered through several folders, in any number of processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.batches.train_loader import TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from datasets.shards import order, pairs
from datasets.shards.importing import import_shards
from datasets.shards.options import ShardOptions
from datasets.shards.pairs import ShardFolders, ShardPairs
from datasets.shards.plan import ImportOptions
from model.backbones.clip_tokenizer import shared_tokenizer
from tests.helpers.annotations import write_images
from utils import UserError
from utils.inputs import InputFormat

SIZE = (32, 16)
FORM = InputFormat(shared_tokenizer(), 24, False, SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FIELDS = ("images", "caption_ids", "mlm_ids", "mlm_labels", "pids", "image_ids", "index")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two folders: ``ids`` has identities, ``none`` has not."""
    root = tmp_path_factory.mktemp("root")
    names = write_images(root / "images", 24)
    rows = [
        {
            "id": 100 + n // 3,
            "split": "train",
            "file_path": name,
            "captions": [f"a man {n} {k}" for k in range(n % 3 + 1)],
        }
        for n, name in enumerate(names)
    ]
    (root / "reid.json").write_text(json.dumps(rows[:15]))
    (root / "ham.json").write_text(json.dumps({row["file_path"]: row["captions"] for row in rows[15:]}))
    for name, folder in (("reid", "ids"), ("ham", "none")):
        import_shards(ImportOptions("auto", (root / f"{name}.json",), root / "images", shard_size=4), root / folder, 1)
    return root


@pytest.fixture
def folders(root: Path) -> ShardFolders:
    from datasets.shards.index import ShardIndex

    return ShardFolders([ShardIndex(root / "ids"), ShardIndex(root / "none")])


def make(folders: ShardFolders, augment: AugmentOptions | None = None, **options: object) -> ShardPairs:
    augment = augment or AugmentOptions(img_aug=True)
    return ShardPairs(folders, ShardOptions(**options), Images(SIZE), FORM, FIELDS, (), augment, seed=3)


def records_of(root: Path, folders: ShardFolders) -> list[ImageRecord]:
    """The same images and captions as loose files, in the order of the shards."""
    records, first = [], 0
    for index in folders.indexes:
        for image in range(len(index)):
            with Path(index.name(image).split(",")[0]).open("rb") as file:
                file.seek(int(index.offset_N[image]))
                data = file.read(int(index.size_N[image]))
            path = next(path for path in (root / "images").rglob("*.jpg") if path.read_bytes() == data)
            pid = int(index.pid_N[image])
            pid = first + (pid if pid >= 0 else image)
            records.append(ImageRecord(pid, len(records), path, tuple(index.captions_of(image))))
        first += index.identities or len(index)
    return records


@pytest.mark.parametrize("augment", [{}, {"word_deletion": 0.3}, {"txt_aug": True}], ids=str)
def test_the_same_batches_as_from_loose_files(root, folders, augment):
    augment = AugmentOptions(img_aug=True, **augment)
    ours = make(folders, augment)
    loose = TrainPairs(records_of(root, folders), Images(SIZE), FORM, FIELDS, (), augment, seed=3)
    assert len(ours) == len(loose) and np.array_equal(ours.pids, loose.pids)
    keys = [(2, index) for index in np.random.default_rng(0).permutation(len(ours)).tolist()]
    one, other = ours.__getitems__(keys), loose.__getitems__(keys)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_identities_are_numbered_through(folders):
    found = make(folders, captions="one").pids
    assert folders.counts == (5 + 9, 24, 48) and len(found) == 24
    assert sorted(set(found[:15].tolist())) == list(range(5)) and found[15:].tolist() == list(range(5, 14))
    assert found.tolist() == [folders.pid_of(image) for image in range(24)]


def test_one_caption_is_drawn_anew_in_every_epoch(folders):
    drawn = make(folders, AugmentOptions(clean_captions=True), captions="one")
    assert len(drawn) == 24
    image = next(image for image in range(24) if len(folders.captions_of(image)) == 3)
    texts = {folders.caption(number) for number in folders.captions_of(image)}
    found = set()
    for epoch in range(1, 30):
        ids = drawn.__getitems__([(epoch, image)])["caption_ids"][0].tolist()
        assert ids == drawn.__getitems__([(epoch, image)])["caption_ids"][0].tolist()
        found.add(FORM.tokenizer.decode(ids).replace(" ", ""))
    assert found == {text.replace(" ", "") for text in texts}


def epoch_of(loader: TrainLoader, epoch: int, step: int = 0) -> list[list[int]]:
    loader.seek(epoch, step)
    return [batch["index"].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_continues_from_any_step(folders, workers, monkeypatch):
    monkeypatch.setattr(order, "_WINDOW", 20)
    monkeypatch.setattr(pairs, "_BLOCK", 2)
    options, device = DataOptions(batch_size=10, num_workers=workers), torch.device("cpu")
    made = make(folders, mix=(1, 2))
    whole = epoch_of(TrainLoader(made, options, device), 2)
    counts = np.bincount(np.concatenate(whole), minlength=48)
    first = folders.indexes[0].captions
    assert counts.tolist() == [1] * first + [2] * (48 - first)
    loader = TrainLoader(made, options, device)
    assert loader.place == (1, 0, len(whole))
    for step in (3, 0, len(whole) - 1, len(whole)):
        assert epoch_of(loader, 2, step) == whole[step:]


@pytest.mark.parametrize("processes", [2, 4])
def test_shares_of_processes_make_up_the_batches(folders, processes, monkeypatch):
    options, device = DataOptions(batch_size=20, num_workers=0), torch.device("cpu")
    whole = epoch_of(TrainLoader(make(folders), options, device), 1)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr("datasets.shards.pairs.rank", lambda rank=rank: rank)
        monkeypatch.setattr("datasets.shards.pairs.world_size", lambda: processes)
        loader = TrainLoader(make(folders), options, device)
        shares.append(epoch_of(loader, 1))
        loader.seek(1)
        bounds = [batch["share_bounds"].tolist() for batch in loader]
        assert [len(batch) for batch in shares[-1]] == [each[rank + 1] - each[rank] for each in bounds]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == whole


def test_a_look_at_the_whole_split_first_is_refused(folders):
    loader = TrainLoader(make(folders), DataOptions(batch_size=10, num_workers=0), torch.device("cpu"))
    with pytest.raises(UserError, match="--dataset_name Shards: losses that look at the whole training split"):
        loader.unaugmented()
