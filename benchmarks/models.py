"""What benchmarks of speed share: models with random weights, from the flags of train.py."""

from collections.abc import Sequence

import torch

import train
from model.backbones import BackboneOptions, load_backbone
from model.build import build_retriever
from model.retriever import Retriever
from utils.device import Precision
from utils.options import Options

IDS = 11003
"""identities of CUHK-PEDES, the size of the id classifier"""
CUHK = IDS, 34054, 68126
"""identities, images and pairs to train on"""
NO_BANKS = IDS, 1, 1
"""for losses that keep nothing per image or pair"""


def read_flags(losses: str, model: str, img_size: Sequence[int], *more: str) -> Options:
    """Flags of some losses on towers of a name and image size (height, width)."""
    shape = ["--pretrain_choice", model, "--img_size", *map(str, img_size)]
    return train.read_flags(["--loss_names", losses, *shape, *more])


def random_model(options: Options, precision: Precision, sizes: tuple[int, int, int] = CUHK) -> Retriever:
    """A model in training mode, the same for the same flags; sizes are identities, images and pairs."""
    torch.manual_seed(0)
    return build_retriever(load_backbone(options.get(BackboneOptions)), options.get, *sizes, precision).train()
