"""Label noise: the published exchange of captions, its file, and what becomes of the training pairs."""

import hashlib
import logging
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.captions import AugmentOptions
from datasets.label_noise import NoiseOptions, exchange_captions, noise_index, read_index
from datasets.mannequins.options import MannequinOptions
from datasets.open import OpenedDataset, open_dataset
from datasets.options import DataOptions
from datasets.records import Dataset, ImageRecord, counts
from datasets.rstpreid import load
from model.backbones.clip_tokenizer import shared_tokenizer
from tests.helpers.golden import Case, params
from utils import FileError, UserError
from utils.inputs import InputFormat

FORM = InputFormat(shared_tokenizer(), 77, False, (32, 16), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
CPU = torch.device("cpu")


@pytest.mark.parametrize("case", params("rde"))
def test_index_is_the_golden_one(case: Case):
    noise = case.json.get("noise") or pytest.skip("this case has no label noise")
    for recorded in noise["cases"]:
        ours = noise_index(recorded["pairs"], recorded["noisy_rate"], noise["numpy_seed"])
        assert ours.tolist() == recorded["caption_index"]
        assert (ours == np.arange(len(ours))).tolist() == [bool(real) for real in recorded["real_correspondence"]]
    for name, recorded in noise["published_files"].items():
        rate = float(name.removesuffix(".npy").split("_")[-1])
        ours = noise_index(recorded["pairs"], rate)
        assert ours[:10].tolist() == recorded["first_10"], name
        assert (ours != np.arange(len(ours))).sum() == recorded["changed"], name
        digest = hashlib.sha256(ours.astype("<i8").tobytes()).hexdigest()
        assert digest == recorded["sha256_of_little_endian_int64"], name


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.999, 1.0])
def test_index_equals_exchanging_one_caption_after_the_other(rate: float):
    rng, order = np.random.RandomState(7), np.arange(83)  # noqa: NPY002
    rng.shuffle(order)
    receivers = order[: int(rate * 83)].tolist()
    donors = np.array(receivers, np.int64)
    rng.shuffle(donors)
    naive = list(range(83))
    for receiver, donor in zip(receivers, donors.tolist(), strict=True):
        naive[receiver] = donor
    ours = noise_index(83, rate, seed=7)
    assert ours.dtype == np.int64 and ours.tolist() == naive
    assert sorted(naive) == list(range(83))


def data(images: int = 30) -> Dataset:
    """One to three captions to an image, each named after its pair, and test captions."""
    dice, pair, train = random.Random(0), 0, []
    for number in range(images):
        captions = tuple(f"caption {pair + n}" for n in range(dice.randint(1, 3)))
        pair += len(captions)
        train.append(ImageRecord(number // 2, number, Path(f"{number}.jpg"), captions))
    test = (ImageRecord(500, 0, Path("test.jpg"), ("a test", "another")),)
    return Dataset("drawn", tuple(train), (), test)


def captions_of(dataset: Dataset) -> list[str]:
    return [caption for record in dataset.train for caption in record.captions]


def test_pairs_keep_image_and_identity_and_get_another_caption(caplog: pytest.LogCaptureFixture):
    clean = data()
    pairs = counts(clean.train)[2]
    caplog.set_level(logging.INFO, "descry")
    logging.getLogger("descry").propagate = True
    noisy = exchange_captions(clean, NoiseOptions(noisy_rate=0.5))
    assert noisy.caption_index.tolist() == noise_index(pairs, 0.5).tolist()
    assert captions_of(noisy) == [f"caption {donor}" for donor in noisy.caption_index]
    bare = [
        [record._replace(captions=("",) * len(record.captions)) for record in each.train] for each in (clean, noisy)
    ]
    assert bare[0] == bare[1]
    assert noisy.test == clean.test
    changed = int((noisy.caption_index != np.arange(pairs)).sum())
    message = f"label noise: {changed} of {pairs} training pairs ({changed / pairs:.1%}) have another one's caption"
    assert message in caplog.text and "--noisy_seed 1" in caplog.text


@pytest.mark.parametrize("options", [NoiseOptions(), NoiseOptions(0.0), NoiseOptions(0.0, "nowhere/none.npy")])
def test_without_noise_nothing_changes(options: NoiseOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    clean = data()
    assert exchange_captions(clean, options) is clean
    assert clean.caption_index is None
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_written_once_and_then_decides(tmp_path: Path):
    path = tmp_path / "new folder" / "index.npy"
    written = exchange_captions(data(), NoiseOptions(0.4, str(path), noisy_seed=3))
    content = path.read_bytes()
    assert np.load(path).tolist() == noise_index(counts(data().train)[2], 0.4, 3).tolist()
    for options in (NoiseOptions(None, str(path)), NoiseOptions(0.4, str(path)), NoiseOptions(0.4, str(path), 9)):
        assert exchange_captions(data(), options).train == written.train
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.arange(9, dtype=np.int64), "made for 9 training pairs, but there are 40; name the file of this data set"),
        (np.arange(40, dtype=np.int32), "expected one row of int64 numbers, found int32 of the shape (40,)"),
        (np.arange(40.0), "found float64"),
        (np.arange(40, dtype=">i8"), "found >i8"),
        (np.arange(40).reshape(8, 5), "of the shape (8, 5)"),
        (np.array(3), "of the shape ()"),
        (np.array([*range(39), 38]), "not a permutation of 0 to 39: 38 does not occur exactly once"),
        (np.arange(1, 41), "not a permutation of 0 to 39: 0 does not"),
        (np.arange(40) - 2**62, "not a permutation"),
        (np.array(["a", None] * 20, object), "not a NPY file (Object arrays cannot be loaded when allow_pickle=False)"),
    ],
)
def test_unusable_files(tmp_path: Path, index: np.ndarray, message: str):
    path = tmp_path / "index.npy"
    np.save(path, index)
    with pytest.raises(UserError) as caught:
        read_index(path, 40)
    assert str(caught.value).startswith(f"--noisy_file {path}: ")
    assert message in str(caught.value)


def test_a_file_that_is_damaged(tmp_path: Path):
    path, dice = tmp_path / "index.npy", random.Random(0)
    np.save(path, np.arange(40))
    whole = path.read_bytes()
    huge = whole.replace(b"(40,), }" + b" " * 12, b"(4000000000000,), } ")
    assert len(huge) == len(whole) != huge
    damaged = [b"", b"no array", whole[:100], whole[:-1], huge]
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(130)] = dice.randrange(256)
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert sorted(read_index(path, 40)) == list(range(40))
        except UserError as error:
            assert str(error).startswith(f"--noisy_file {path}: ")
            refused += 1
    assert refused > 200
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_index(tmp_path, 40)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.49, 0.51, 0.8, 1.0])
def test_a_rate_that_does_not_fit_the_file(tmp_path: Path, rate: float):
    path = tmp_path / "half.npy"
    exchange_captions(data(2000), NoiseOptions(0.5, str(path)))
    with pytest.raises(UserError) as caught:
        exchange_captions(data(2000), NoiseOptions(rate, str(path)))
    said = str(caught.value)
    assert said.startswith(f"--noisy_rate {rate:g}: does not fit --noisy_file {path}, by which ")
    assert "training pairs (50.0%) have another one's caption; leave --noisy_rate out" in said


def test_a_file_without_noise_fits_no_rate_but_0(tmp_path: Path):
    path = tmp_path / "none.npy"
    np.save(path, np.arange(counts(data().train)[2]))
    for rate in (None, 0.0):
        assert exchange_captions(data(), NoiseOptions(rate, str(path))).train == data().train
    with pytest.raises(UserError, match="does not fit"):
        exchange_captions(data(), NoiseOptions(0.5, str(path)))


def test_rate_of_a_file_survives_fixed_points(tmp_path: Path):
    """A file that a rate made is accepted with that rate, whatever the number of captions that stayed."""
    path, fixed = tmp_path / "index.npy", Counter()
    for seed in range(60):
        path.unlink(missing_ok=True)
        made = exchange_captions(data(), NoiseOptions(0.5, str(path), seed))
        pairs = len(made.caption_index)
        fixed[int(0.5 * pairs) - int((made.caption_index != np.arange(pairs)).sum())] += 1
        assert exchange_captions(data(), NoiseOptions(0.5, str(path))).train == made.train
    assert len(fixed) > 2 and min(fixed) == 0


def test_a_file_that_is_not_there_or_cannot_be_made(tmp_path: Path):
    missing = str(tmp_path / "none.npy")
    with pytest.raises(UserError, match=r"none.npy: no such file; with --noisy_rate R it is written$"):
        exchange_captions(data(), NoiseOptions(None, missing))
    (tmp_path / "file").write_text("")
    for impossible in (tmp_path / "file" / "index.npy", tmp_path / ("a" * 300)):
        with pytest.raises(FileError, match="cannot be written"):
            exchange_captions(data(), NoiseOptions(0.5, str(impossible)))


@pytest.fixture
def opened(data_root: Path):
    """The RSTPReid layout, opened with these flags."""

    def open_with(noise: NoiseOptions = NoiseOptions(), split: str = "train", seed: int = 1) -> OpenedDataset:  # noqa: B008
        given = {
            DataOptions: DataOptions("RSTPReid", data_root, batch_size=8, num_workers=0, seed=seed),
            NoiseOptions: noise,
            AugmentOptions: AugmentOptions(clean_captions=True),
            MannequinOptions: MannequinOptions(),
        }
        return open_dataset(lambda group: given.get(group) or group(), (32, 16), {split: "--split"})

    return open_with


def test_loader_gives_the_captions_exchanged_and_knows_which_are_real(opened, data_root: Path):
    original = [caption for r in load(data_root, lambda group: group()).train for caption in r.captions]
    ids, lengths = shared_tokenizer()(original, 77)
    noisy = opened(NoiseOptions(0.5), seed=4)
    loader = noisy.train_loader(FORM, ("caption_ids", "mlm_ids", "index", "pids", "image_ids"), (), CPU)
    index = torch.from_numpy(noise_index(len(original), 0.5))
    assert torch.equal(loader.real, index == torch.arange(len(index)))
    assert 15 < loader.real.sum() < 25
    for batch in loader:
        donor = index[batch["index"]]
        assert torch.equal(batch["caption_ids_lengths"], lengths[donor])
        assert torch.equal(batch["caption_ids"], ids[donor][:, : batch["caption_ids"].shape[1]])
        assert torch.equal(batch["pids"], loader.pids[batch["index"]])
        assert (batch["image_ids"] == batch["index"] // 2).all()
    assert loader.unaugmented().captions == tuple(original[donor] for donor in index)


def test_noise_changes_neither_order_nor_views(opened):
    fields = ("images", "caption_ids", "index", "pids")
    clean, noisy = (opened(noise).train_loader(FORM, fields, (), CPU) for noise in (NoiseOptions(), NoiseOptions(0.5)))
    assert clean.real is None
    for ours, theirs in zip(noisy, clean, strict=True):
        for field in ("images", "index", "pids"):
            assert torch.equal(ours[field], theirs[field]), field


def test_only_training_captions_are_exchanged(opened):
    assert opened(NoiseOptions(1.0), "test").dataset == opened(split="test").dataset
    assert opened(NoiseOptions(1.0), "test").dataset.caption_index is None
    assert opened(NoiseOptions(1.0)).dataset.test == opened().dataset.test
