"""A split to evaluate on: every image and caption once, and captions cut only where nothing is lost."""

from pathlib import Path

import pytest
import torch

from datasets.batches.evaluation_split import EvaluationSplit
from datasets.images.source import Images
from datasets.options import DataOptions
from datasets.records import ImageRecord
from datasets.rstpreid import load
from model.backbones.clip_tokenizer import END_ID, shared_tokenizer
from tests.helpers.images import photo
from utils.inputs import InputFormat

FORM = InputFormat(shared_tokenizer(), 77, False, (32, 16), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
SIX = DataOptions(test_batch_size=6, num_workers=0)


def make_split(records, form: InputFormat = FORM, options: DataOptions = SIX) -> EvaluationSplit:
    return EvaluationSplit("test", records, Images((32, 16)), form, options, torch.device("cpu"))


@pytest.fixture(scope="module")
def records(data_root: Path) -> tuple[ImageRecord, ...]:
    return load(data_root, lambda group: group()).test


def test_every_caption_and_image_comes_once(records):
    split = make_split(records)
    images = list(split.image_batches())
    assert len(images) == split.num_image_batches
    assert sum(map(len, images)) == len(records) == len(split.gallery_positions)
    assert split.gallery_positions.tolist() == list(range(len(records)))
    assert images[0].dtype == torch.float32 and images[0].shape == (6, 3, 32, 16)
    texts = list(split.text_batches())
    assert len(texts) == split.num_text_batches
    positions = torch.cat([position for position, _, _ in texts])
    assert sorted(positions.tolist()) == list(range(len(split.query_pids)))
    assert split.query_pids.tolist() == [record.pid for record in records for _ in record.captions]
    assert split.gallery_pids.tolist() == [record.pid for record in records]
    assert split.captions == tuple(caption for record in records for caption in record.captions)
    assert split.paths == tuple(record.path for record in records)


def test_captions_come_by_length_and_uncut(records):
    split = make_split(records)
    ids, lengths = shared_tokenizer()(split.captions, 77)
    before = 0
    for positions, batch_ids, batch_lengths in split.text_batches():
        assert torch.equal(batch_lengths, lengths[positions])
        assert torch.equal(batch_ids, ids[positions, : batch_ids.shape[1]])
        assert batch_ids.shape[1] == batch_lengths.max() < 77
        assert batch_lengths.min() >= before
        before = int(batch_lengths.max())


def test_a_model_that_reads_padding_gets_captions_whole_and_in_order(records):
    split = make_split(records, FORM._replace(reads_padding=True))
    positions, ids, _ = (torch.cat(column) for column in zip(*split.text_batches(), strict=True))
    assert positions.tolist() == list(range(len(split.captions)))
    assert torch.equal(ids, shared_tokenizer()(split.captions, 77).ids)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("room", [77, 4, 3])
def test_id_0_inside_costs_no_caption_its_end(tmp_path: Path, batch_size: int, room: int):
    photo().save(tmp_path / "photo.png")
    captions = ("a man !(", "!( in red", "!;", "two !/ bags", "!$ !$", "!(!(!(", "&nbsp;")
    records = (ImageRecord(0, 0, tmp_path / "photo.png", captions),)
    options = DataOptions(test_batch_size=batch_size, num_workers=0)
    expected = shared_tokenizer()(captions, room)
    for positions, ids, lengths in make_split(records, FORM._replace(text_length=room), options).text_batches():
        assert torch.equal(lengths, expected.lengths[positions])
        assert ids.shape[1] == lengths.max()
        assert torch.equal(ids, expected.ids[positions, : ids.shape[1]])
        assert (ids.gather(1, lengths[:, None] - 1) == END_ID).all()
        assert ((ids == END_ID).sum(1) == 1).all()
