"""Flags of training on shards."""

from dataclasses import dataclass

from utils.options import opt

SHARDS = "Shards"
"""the value of ``--dataset_name``"""


@dataclass(frozen=True)
class ShardOptions:
    """How shards are trained on."""

    mix: tuple[float, ...] = opt((), "how often each --root_dir is visited in an epoch; default: once", above=0)
    captions: str = opt(
        "all", "whether an epoch visits every caption, or every image with one caption drawn", choices=("all", "one")
    )
