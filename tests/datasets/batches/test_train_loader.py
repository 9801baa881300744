"""Training batches: randomness depends on (seed, epoch, sample) alone, and any step of any epoch can be gone to."""

import gc
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datasets.batches.fields import TEXT_FIELDS
from datasets.batches.train_loader import Place, TrainLoader
from datasets.batches.train_pairs import TrainPairs
from datasets.captions import AugmentOptions
from datasets.images.decode import ImageError
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from datasets.rstpreid import load
from model.backbones import BackboneOptions, load_backbone
from model.backbones.clip_tokenizer import END_ID, MASK_ID, shared_tokenizer
from model.build import LossOptions, build_retriever
from model.cross_former import CrossOptions
from tests.helpers.images import photo
from utils.inputs import InputFormat

ALL = ("images", "caption_ids", "mlm_ids", "mlm_labels", "mlm_positions", "pids", "image_ids", "index")
LENGTHS = ("caption_ids_lengths", "mlm_ids_lengths")
CPU = torch.device("cpu")
FORM = InputFormat(shared_tokenizer(), 77, False, (32, 16), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
EIGHT = DataOptions(batch_size=8, num_workers=0, seed=3)
STRONG = AugmentOptions(img_aug=True, txt_aug=True, word_deletion=0.2)
ZERO_INSIDE = ("a man !(", "!( in red", "!;", "two !/ bags", "!$ !$", "!(!(!(")
"""captions with a token of id 0"""


@pytest.fixture(scope="module")
def records(data_root: Path) -> tuple[ImageRecord, ...]:
    return load(data_root, lambda group: group()).train


@pytest.fixture(scope="module")
def pairs(records: tuple[ImageRecord, ...]) -> TrainPairs:
    augment = AugmentOptions(img_aug=True, clean_captions=True)
    return TrainPairs(records, Images((32, 16)), FORM, ALL, ("mlm_ids",), augment, seed=3)


@pytest.fixture
def written(tmp_path: Path):
    """Records of one image with these captions."""

    def write(*captions: str) -> tuple[ImageRecord, ...]:
        photo().save(tmp_path / "photo.png")
        return (ImageRecord(0, 0, tmp_path / "photo.png", captions),)

    return write


def make_loader(records, augment=STRONG, options=EIGHT, form=FORM, fields=ALL, padded=("mlm_ids",)) -> TrainLoader:
    pairs = TrainPairs(records, Images((32, 16)), form, fields, padded, augment, options.seed)
    return TrainLoader(pairs, options, CPU)


def at(loader: TrainLoader, epoch: int, step: int = 0) -> TrainLoader:
    loader.seek(epoch, step)
    return loader


def assert_same_batches(batches: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys() == other.keys()
        for name, value in other.items():
            assert torch.equal(batch[name], value), name


def test_batches_hold_what_was_asked_for(pairs: TrainPairs):
    batch = pairs.__getitems__([(1, 5), (1, 0)])
    assert set(batch) == {*ALL, *LENGTHS, "pixels"}
    assert batch["pixels"].shape == (2, 3, 32, 16) and batch["pixels"].dtype == torch.uint8
    assert batch["index"].tolist() == [5, 0]
    assert batch["pids"].tolist() == [pairs.records[2].pid, pairs.records[0].pid]
    assert batch["image_ids"].tolist() == [2, 0]
    assert batch["mlm_ids"].shape == (2, 77), "padding matters to the cross former"
    captions = [pairs.records[2].captions[1], pairs.records[0].captions[0]]
    ids, lengths = shared_tokenizer()(captions, 77)
    for name in LENGTHS:
        assert torch.equal(batch[name], lengths), name
    assert torch.equal(batch["caption_ids"], ids[:, : max(lengths)])
    assert batch["caption_ids"].shape[1] < 77
    labels = batch["mlm_labels"].flatten()
    assert labels[batch["mlm_positions"]].min() > 0
    assert (labels > 0).sum() == len(batch["mlm_positions"])


def test_choices_depend_on_seed_epoch_and_sample_only(pairs: TrainPairs):
    alone, among = pairs.__getitems__([(2, 7)]), pairs.__getitems__([(2, 1), (2, 7), (2, 3)])
    for name in ("images", "mlm_ids", "pixels"):
        assert torch.equal(alone[name][0], among[name][1]), name
    later = pairs.__getitems__([(3, 7)])
    assert not torch.equal(alone["images"], later["images"])
    assert not torch.equal(alone["mlm_ids"], later["mlm_ids"])


def test_batches_are_ready_on_the_device(records):
    (batch,) = make_loader(records[:2], fields=("images", "caption_ids", "mlm_ids", "mlm_labels"))
    assert batch["images"].shape == (4, 3, 32, 16) and batch["images"].dtype == torch.float32
    assert batch["images"].min() < -1, "normalised"
    assert batch["caption_ids"] is batch["mlm_ids"], "masked in place, as published"
    assert batch["caption_ids_lengths"] is batch["mlm_ids_lengths"]
    assert "pixels" not in batch
    assert batch["share_bounds"].tolist() == [0, 4]


def test_a_model_that_reads_padding_gets_all_of_it(records):
    (batch,) = make_loader(records[:2], form=FORM._replace(reads_padding=True), padded=())
    assert batch["caption_ids"].shape == batch["mlm_labels"].shape == (4, 77)
    (batch,) = make_loader(records[:2], padded=())
    assert batch["caption_ids"].shape[1] == batch["caption_ids_lengths"].max() < 77


def test_augmented_captions_depend_on_seed_epoch_sample_and_visit(records):
    fields, augment = ("images", "caption_ids", "mlm_ids"), AugmentOptions(txt_aug=True, clean_captions=True)
    pairs = TrainPairs(records, Images((32, 16)), FORM, fields, fields, augment, seed=3)
    alone, among = pairs.__getitems__([(2, 7)]), pairs.__getitems__([(2, 1), (2, 7), (2, 3)])
    for name in alone:
        if name != "mlm_positions":
            assert torch.equal(alone[name][0], among[name][1]), name
    assert all(torch.equal(pairs.__getitems__([(2, 7, 0)])[name], value) for name, value in alone.items())
    reseeded = TrainPairs(records, Images((32, 16)), FORM, fields, fields, augment, seed=4)
    many = [(2, index) for index in range(20)]
    first = pairs.__getitems__(many)
    later = (pairs.__getitems__([(3, index) for index in range(20)]), reseeded.__getitems__(many))
    again = pairs.__getitems__([(2, index, 1) for index in range(20)])
    for other in (*later, again):
        for name in ("images", "caption_ids", "mlm_ids"):
            assert not torch.equal(first[name], other[name]), name
    assert torch.equal(first["pixels"], again["pixels"])


def test_all_fields_are_made_of_the_augmented_caption(records):
    fields = (*ALL, "caption_ids_aug")
    augment = AugmentOptions(txt_aug=True, clean_captions=True, word_deletion=0.1)
    pairs = TrainPairs(records, Images((32, 16)), FORM, fields, TEXT_FIELDS, augment, seed=3)
    batch = pairs.__getitems__([(1, index) for index in range(40)])
    caption, length = batch["caption_ids"], batch["caption_ids_lengths"]
    assert (caption == MASK_ID).any()
    for name in ("caption_ids_aug", "mlm_ids"):
        assert torch.equal(batch[f"{name}_lengths"], length), name
    hidden = batch["caption_ids_aug"] == MASK_ID
    assert torch.equal(batch["caption_ids_aug"][~hidden], caption[~hidden])
    chosen = batch["mlm_labels"] > 0
    assert torch.equal(batch["mlm_ids"][~chosen], caption[~chosen])
    assert torch.equal(batch["mlm_labels"][chosen], caption[chosen]), "what mlm is asked for is what other losses see"
    assert not (batch["mlm_labels"] == MASK_ID).any(), "a token that is masked already is not asked for"
    ends = caption.gather(1, length[:, None] - 1)
    assert (ends == END_ID).all() and ((caption == END_ID).sum(1) == 1).all()
    assert not (caption * (torch.arange(77) >= length[:, None])).any()
    untouched, _ = shared_tokenizer()([text for record in records for text in record.captions], 77)
    assert torch.equal(torch.from_numpy(pairs.ids_NL), untouched), "the stored captions stay as they are"


def test_an_epoch_has_every_pair_once(records):
    loader = make_loader(records)
    whole = [batch["index"].tolist() for batch in at(loader, 4)]
    assert sorted(sum(whole, [])) == list(range(len(loader.pids))) == list(range(40))
    assert len(whole) == loader.steps(4) == 5
    assert loader.pids.tolist() == [record.pid for record in records for _ in record.captions]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("sampler", ["random", "identity"])
def test_any_step_can_be_gone_to(records, workers: int, sampler: str):
    options = DataOptions(batch_size=8, num_workers=workers, sampler=sampler, num_instance=2, seed=3)
    loader = make_loader(records, options=options)
    whole = list(at(loader, 4))
    assert loader.place == (4, loader.steps(4), loader.steps(4))
    assert len(whole) == loader.steps(4) > 2
    for step in (2, len(whole), 0):
        fresh = at(make_loader(records, options=options), 4, step)
        assert fresh.place == Place(4, step, len(whole))
        assert_same_batches(list(fresh), whole[step:])
    assert_same_batches(list(at(loader, 4, 1)), whole[1:])  # back in the same loader
    later = list(at(loader, 5))
    assert later[0]["index"].tolist() != whole[0]["index"].tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_that_is_left_continues_where_it_was(records, workers: int):
    options = DataOptions(batch_size=8, num_workers=workers, seed=3)
    whole = list(at(make_loader(records, options=options), 2))
    loader, seen = at(make_loader(records, options=options), 2), []
    for batch in loader:
        seen.append(batch)
        assert loader.place == (2, len(seen), 5), "the step of a batch counts as soon as it is given out"
        if len(seen) == 2:
            break
    resumed = at(make_loader(records, options=options), *loader.place[:2])
    assert_same_batches(seen + list(resumed), whole)
    assert_same_batches(seen + list(loader), whole)
    assert list(loader) == [], "nothing is left"
    assert loader.place == resumed.place == (2, 5, 5)


def test_order_and_views_do_not_depend_on_global_random_numbers(records):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = list(make_loader(records))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert_same_batches(list(make_loader(records)), first)
    assert torch.equal(torch.get_rng_state(), state), "nor does loading advance those that dropout draws from"
    other = list(make_loader(records, options=DataOptions(batch_size=8, num_workers=0, seed=4)))
    assert other[0]["index"].tolist() != first[0]["index"].tolist()


def test_unaugmented_is_the_training_split_as_it_is(records):
    loader = at(make_loader(records), 2, 3)
    split = loader.unaugmented()
    assert loader.place == (2, 3, 5), "looking at the split does not move the loader"
    assert split.name == "train"
    assert split.captions == tuple(caption for record in records for caption in record.captions)
    assert torch.equal(split.query_pids, loader.pids)
    assert split.gallery_pids.tolist() == [record.pid for record in records]
    pixels = torch.from_numpy(np.stack([Images((32, 16)).read(record.path) for record in records])) / 255
    mean, std = (torch.tensor(colour).view(3, 1, 1) for colour in (FORM.pixel_mean, FORM.pixel_std))
    assert torch.allclose(torch.cat(list(split.image_batches())), (pixels - mean) / std, atol=1e-5)
    ids, lengths = shared_tokenizer()(split.captions, 77)
    seen = 0
    for positions, batch_ids, batch_lengths in split.text_batches():
        assert torch.equal(batch_lengths, lengths[positions])
        assert torch.equal(batch_ids, ids[positions, : batch_ids.shape[1]])
        assert MASK_ID not in batch_ids
        seen += len(positions)
    assert seen == len(ids)


@pytest.mark.parametrize("deletion", [0.0, 0.4])
def test_id_0_inside_costs_no_caption_its_end(written, deletion: float):
    fields = (*ALL, "caption_ids_aug")
    augment = AugmentOptions(clean_captions=True, word_deletion=deletion, mask_probability=0.9)
    records = written(*ZERO_INSIDE, *ZERO_INSIDE[::-1])
    options = DataOptions(batch_size=2, num_workers=0)
    tokenizer, zeros, batches = shared_tokenizer(), 0, 0
    loader = make_loader(records, augment, options, fields=fields, padded=())
    for epoch in range(1, 6):
        for batch in at(loader, epoch):
            for field in ("caption_ids", "caption_ids_aug", "mlm_ids"):
                ids, lengths = batch[field], batch[f"{field}_lengths"]
                assert ids.shape[1] == lengths.max()
                ends = ids.gather(1, lengths[:, None] - 1)
                assert (ends == END_ID).all(), field
                assert ((ids == END_ID).sum(1) == 1).all(), field
                assert all(not row[length:].any() for row, length in zip(ids, lengths, strict=True))
            assert (batch["mlm_labels"] != END_ID).all()
            rows = zip(batch["caption_ids"], batch["caption_ids_lengths"], strict=True)
            zeros += sum(int((row[:length] == 0).sum()) for row, length in rows)
            if not deletion:
                captions = [(ZERO_INSIDE + ZERO_INSIDE[::-1])[index] for index in batch["index"]]
                assert torch.equal(batch["caption_ids_lengths"], tokenizer(captions, 77).lengths)
            batches += 1
    assert batches == 30 and zeros > 30


def test_a_batch_without_any_masked_position(written):
    """Captions that tokenise to nothing give the mlm loss nothing to guess: it is 0, and has a gradient."""
    given = {
        LossOptions: LossOptions(loss_names="itc+mlm"),
        CrossOptions: CrossOptions(1),
        BackboneOptions: BackboneOptions("tiny", (32, 16)),
    }
    backbone = load_backbone(given[BackboneOptions])
    model = build_retriever(backbone, lambda group: given.get(group) or group(), 1, 1, 2).train()
    form = model.input_format(77)
    loader = make_loader(written("&nbsp;", "&#32;"), form=form, fields=model.needed_fields, padded=model.padded_fields)
    (batch,) = loader
    assert batch["mlm_ids_lengths"].tolist() == [2, 2]
    assert batch["mlm_positions"].shape == (0,) and batch["mlm_positions"].dtype == torch.int64
    assert batch["mlm_ids"][:, 1].tolist() == [END_ID, END_ID]
    step, _ = model(batch)
    step.loss.backward()
    assert step.report["mlm_loss"] == 0 and step.report["mlm_acc"] == 0
    assert step.loss.isfinite()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(records, tmp_path: Path, workers: int):
    Image.new("RGB", (20, 40)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    bad = (records[0], records[1]._replace(path=tmp_path / "bad.png"))
    others = set(multiprocessing.active_children())
    gc.disable()
    with pytest.raises(ImageError, match=r"^\S*bad.png: not an image in a supported format$"):
        list(make_loader(bad, options=DataOptions(batch_size=8, num_workers=workers)))
    gc.enable()
    assert not set(multiprocessing.active_children()) - others, "a worker that lives on keeps the program from ending"
