"""What a batch holds: trimming, aliases, second views, and that randomness depends on (seed, epoch, sample) alone."""

import numpy as np
import pytest
import torch
from datasets.options import DataOptions

from datasets.augmentation import PAD
from datasets.batches.evaluation_split import eval_data
from datasets.batches.fields import Sample, aliases, fields_to_make, producers_for, trim
from datasets.batches.train_loader import TrainLoader, TrainPairs, prepare_batch
from datasets.captions import AugmentOptions
from datasets.images.source import Images
from datasets.rstpreid import load
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID

ALL = ("images", "caption_ids", "mlm_ids", "mlm_labels", "mlm_positions", "pids", "image_ids", "index")
TOKENS = np.array([START_ID, *range(100, 140), END_ID, 0, 0])
BOTH = ("images", "caption_ids", "images_aug", "caption_ids_aug")


def produce(fields: tuple[str, ...], options: AugmentOptions, index: int = 0) -> dict[str, np.ndarray]:
    sample = Sample(1, 1, index, 0, 0, TOKENS, (96, 32))
    return {name: value for make in producers_for(fields) for name, value in make(sample, options).items()}


@pytest.fixture(scope="module")
def pairs(data_root) -> TrainPairs:
    records = load(data_root).train
    return TrainPairs(records, Images((32, 16)), ALL, ("mlm_ids",), AugmentOptions(img_aug=True), 77, seed=3)


def test_batches_hold_what_was_asked_for(pairs: TrainPairs):
    batch = pairs.__getitems__([(1, 5), (1, 0)])
    assert set(batch) == {*ALL, "pixels"}
    assert batch["pixels"].shape == (2, 3, 32, 16) and batch["pixels"].dtype == torch.uint8
    assert batch["index"].tolist() == [5, 0]
    assert batch["pids"].tolist() == [pairs.records[2].pid, pairs.records[0].pid]
    assert batch["mlm_ids"].shape == (2, 77), "padding matters to the cross former"
    assert batch["caption_ids"].shape[1] == (batch["caption_ids"] > 0).sum(1).max() < 77
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


def test_published_masking_is_in_place():
    masked, clean = AugmentOptions(), AugmentOptions(clean_captions=True)
    with_mlm, without = ("images", "caption_ids", "mlm_ids", "mlm_labels"), ("images", "caption_ids")
    assert aliases(with_mlm, masked) == {"caption_ids": "mlm_ids"}
    assert "caption_ids" not in fields_to_make(with_mlm, masked)
    assert aliases(with_mlm, clean) == {} and fields_to_make(with_mlm, clean) == with_mlm
    assert aliases(without, masked) == {} and fields_to_make(without, masked) == without
    assert "mlm_ids" in fields_to_make(without, AugmentOptions(MLM=True))


def test_prepared_batch(pairs: TrainPairs):
    batch = prepare_batch(pairs.__getitems__([(1, 0), (1, 1)]), torch.device("cpu"), {"again": "mlm_ids"})
    assert batch["images"].shape == (2, 3, 32, 16) and batch["images"].dtype == torch.float32
    assert batch["again"] is batch["mlm_ids"]
    assert "pixels" not in batch


def test_trim_cuts_labels_with_their_ids():
    batch = {"mlm_ids": np.array([[5, 6, 0, 0]]), "mlm_labels": np.array([[0, 6, 0, 0]])}
    trim(batch, ())
    assert batch["mlm_ids"].tolist() == [[5, 6]] and batch["mlm_labels"].tolist() == [[0, 6]]


def test_unknown_field():
    with pytest.raises(ValueError, match="no producer makes the batch field 'depth'; there are images"):
        producers_for(("images", "depth"))


def test_an_epoch_can_begin_in_the_middle(pairs: TrainPairs):
    options = DataOptions(batch_size=8, num_workers=0)
    whole = [batch["index"].tolist() for batch in TrainLoader(pairs, options, False).epoch(4)]
    rest = [batch["index"].tolist() for batch in TrainLoader(pairs, options, False).epoch(4, skip=2)]
    assert rest == whole[2:]
    assert sorted(sum(whole, [])) == list(range(len(pairs)))
    assert len(whole) == TrainLoader(pairs, options, False).steps(4)


def test_evaluation_covers_every_caption_and_image_once(data_root):
    records = load(data_root).test
    split = eval_data("test", records, Images((32, 16)), DataOptions(test_batch_size=6, num_workers=0), False, False)
    assert sum(len(batch) for batch in split.image_batches) == len(records)
    places = torch.cat([place for place, _ in split.text_batches])
    assert sorted(places.tolist()) == list(range(len(split.query_pids)))
    assert split.query_pids.tolist() == [record.pid for record in records for _ in record.captions]
    for place, ids in split.text_batches:
        assert (ids == 49407).any(dim=1).all(), "no caption is cut by batching"
        assert len(place) == len(ids)


@pytest.mark.parametrize("img_aug", [False, True])
def test_beside_an_augmented_view_the_image_is_plain(img_aug: bool):
    options = AugmentOptions(img_aug=img_aug, MLM=True)
    made = [produce(BOTH, options, index) for index in range(50)]
    assert all((fields["images"] == (0, PAD, PAD, 0, 0, 0, 0)).all() for fields in made)
    assert len({tuple(fields["images_aug"]) for fields in made}) > 40
    assert any(produce(("images",), options, index)["images"][0] for index in range(50)), "alone it is flipped"


def test_beside_a_masked_view_the_caption_is_clean():
    options = AugmentOptions(MLM=True)
    assert fields_to_make(BOTH, options) == BOTH
    assert not aliases(BOTH, options)
    made = produce(BOTH, options)
    assert (made["caption_ids"] == TOKENS).all()
    assert (made["caption_ids_aug"] == MASK_ID).any()
