"""A feature belongs to its image or caption alone: the same in any batch, whatever the system.

Otherwise scores depend on ``--test_batch_size`` and samples of one person can leak into each other.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import train
from model.adapters.prompts import PromptOptions
from model.backbones import load_backbone
from model.backbones.clip_tokenizer import END_ID, START_ID
from model.backbones.spec import BackboneOptions
from model.build import build_retriever
from model.retriever import Retriever

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SYSTEMS = {path.stem: ["--config_file", str(path)] for path in CONFIGS} | {
    f"php {variant}": ["--loss_names", "itc", "--php_variant", variant] for variant in ("base", "crfm", "efp")
}
PUBLISHED_PHP = ["--loss_names", "itc+aux", "--php_attention", "batch"]
ORDER = [3, 0, 6, 2, 5, 1, 4]


def build(flags: list[str]) -> Retriever:
    """The model of these flags on tiny towers, in float64, with no weight left at a neutral start."""
    torch.manual_seed(0)
    tiny = ["--pretrain_choice", "tiny", "--img_size", "64", "32"]
    options = train.read_flags([*flags, *tiny])
    if options.get(PromptOptions).prompt_depth:
        options = train.read_flags([*flags, *tiny, "--prompt_depth", "2"])  # the tiny towers have no more blocks
    model = build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.double().eval()


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Seven images, and seven captions of different lengths, padded to 77; two of them have id 0 inside."""
    torch.manual_seed(1)
    ids, lengths = torch.zeros(7, 77, dtype=torch.long), torch.tensor([5, 30, 77, 12, 9, 40, 3])
    for row, length in enumerate(lengths.tolist()):
        ids[row, :length] = torch.randint(1, 1000, (length,))
        ids[row, 0], ids[row, length - 1] = START_ID, END_ID
    ids[1, 7], ids[4, 3:6] = 0, 0
    return torch.randn(7, 3, 64, 32, dtype=torch.float64), ids, lengths


def largest_change(encode: Callable, *inputs: Tensor) -> float:
    """Largest difference of a normalised feature between a batch, each sample alone, and a shuffled batch."""
    with torch.no_grad():
        together = F.normalize(encode(*inputs).feature, dim=-1)
        alone = [encode(*(value[row : row + 1] for value in inputs)).feature for row in range(len(together))]
        alone = F.normalize(torch.cat(alone), dim=-1)
        shuffled = F.normalize(encode(*(value[ORDER] for value in inputs)).feature, dim=-1)
    return max((alone - together).abs().max().item(), (shuffled - together[ORDER]).abs().max().item())


@pytest.mark.parametrize("system", SYSTEMS)
def test_features_do_not_depend_on_the_batch(system: str):
    model = build(SYSTEMS[system])
    images, *captions = samples()
    assert not model.attends_over_batch
    assert largest_change(model.encode_image, images) < 1e-9
    assert largest_change(model.encode_text, *captions) < 1e-9


def test_published_php_depends_on_the_batch():
    model = build(PUBLISHED_PHP)
    images, *captions = samples()
    assert model.attends_over_batch
    assert largest_change(model.encode_image, images) > 1e-3
    assert largest_change(model.encode_text, *captions) > 1e-3


@pytest.mark.parametrize("system", SYSTEMS)
def test_padding_matters_exactly_where_the_model_says_so(system: str):
    model = build(SYSTEMS[system])
    _, ids, lengths = samples()
    with torch.no_grad():
        for row in (0, 4):
            texts = ids[row : row + 1], ids[row : row + 1, : lengths[row]]
            whole, cut = (F.normalize(model.encode_text(x, lengths[row : row + 1]).feature, dim=-1) for x in texts)
            assert ((whole - cut).abs().max().item() > 1e-6) == model.reads_padding
    assert model.input_format(77).reads_padding == model.reads_padding
