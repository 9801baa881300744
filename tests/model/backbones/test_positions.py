"""Position tables: image grids, and text tables against loops over single positions."""

import pytest
import torch

from model.backbones import load_backbone
from model.backbones.positions import resize_positions, stretch_positions, text_positions
from model.backbones.spec import BackboneOptions
from utils import UserError


def linear(table: list[float], length: int) -> list[float]:
    """TBPS-CLIP's rule: centres of intervals of equal width, first and last position apart."""
    inner, count = table[1:-1], length - 2
    found = []
    for place in range(count):
        source = min(max((place + 0.5) * len(inner) / count - 0.5, 0), len(inner) - 1)
        left = min(int(source), len(inner) - 2)
        found.append(inner[left] + (source - left) * (inner[left + 1] - inner[left]))
    return [table[0], *found, table[-1]]


def keep20(table: list[float]) -> list[float]:
    """Long-CLIP's rule, as its paper and program spell it out: quarter steps behind the first 20."""
    found = table[:20]
    for left, right in zip(table[20:], table[21:], strict=False):
        found += [left + quarter / 4 * (right - left) for quarter in range(4)]
    return found + [table[-1] + quarter / 4 * (table[-1] - table[-2]) for quarter in range(4)]


@pytest.mark.parametrize("length", [78, 168, 248, 300])
def test_linear(length: int):
    table = torch.randn(77, 3, dtype=torch.float64)
    expected = [linear(column.tolist(), length) for column in table.T]
    torch.testing.assert_close(stretch_positions(table, length, "linear"), torch.tensor(expected).T.double())


@pytest.mark.parametrize("length", [78, 168, 248])
def test_keep20(length: int):
    table = torch.randn(77, 3, dtype=torch.float64)
    expected = torch.tensor([keep20(column.tolist()) for column in table.T], dtype=torch.float64).T
    assert len(expected) == 248
    torch.testing.assert_close(stretch_positions(table, length, "keep20"), expected[:length])


def test_a_table_that_is_long_enough_stays():
    table = torch.randn(77, 3)
    assert stretch_positions(table, 77, "keep20") is table
    for length in (None, 44, 77):
        assert text_positions(77, BackboneOptions(text_length=length)) == 77


def test_lengths_that_are_refused():
    with pytest.raises(UserError, match="--text_length 78: the text tower takes at most 77 tokens; --text_stretch"):
        text_positions(77, BackboneOptions(text_length=78))
    with pytest.raises(UserError, match="--text_length 249: --text_stretch keep20 makes at most 248 of the text tower"):
        text_positions(77, BackboneOptions(text_length=249, text_stretch="keep20"))
    with pytest.raises(UserError, match="keep20 makes at most 16 of"):
        text_positions(16, BackboneOptions(text_length=20, text_stretch="keep20"))
    assert text_positions(77, BackboneOptions(text_length=999, text_stretch="linear")) == 999


def test_grids_with_and_without_a_class_position():
    positions = torch.randn(16, 5)
    without = resize_positions(positions, (6, 2), has_class=False)
    assert torch.equal(
        resize_positions(torch.cat([positions[:1], positions]), (6, 2)), torch.cat([positions[:1], without])
    )
    assert resize_positions(positions, (4, 4), has_class=False) is positions
    assert not torch.equal(resize_positions(positions, (8, 2), has_class=False), positions), "as many, placed otherwise"


def test_random_towers_with_long_texts():
    clip = load_backbone(BackboneOptions("tiny", (32, 32), text_length=168, text_stretch="linear"))
    assert clip.spec.context_length == 168
    ids, lengths = clip.tokenizer(["a man in a coat " * 60], 168)
    assert lengths.tolist() == [168]
    assert clip.encode_text(ids, lengths).tokens.shape == (1, 168, 64)
