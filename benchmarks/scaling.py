"""Several GPUs, on paper: bytes between them and expected efficiency, computed from stated figures, not measured."""

import argparse
from typing import NamedTuple

PATCHES, WORDS, WIDTH = 193, 77, 512
"""tokens of an image (384 x 128, ViT-B/16) and of a caption, and the width of their features"""
IMAGE_FLOPS = 2 * 85.05e6 * PATCHES + 12 * 4 * PATCHES**2 * 768
TEXT_FLOPS = 2 * 37.83e6 * WORDS + 12 * 4 * WORDS**2 * 512
"""of a forward pass of one sample: two for each weight and token, and attention"""
CROSS_FLOPS = 2 * 13.7e6 * WORDS
PEAK, SHARE, FLOAT32_PEAK = 990e12, 0.4, 67e12
"""FLOP/s of an H100 or H200: bfloat16 without sparsity, the share of it that training reaches, float32"""
BUCKET = 25 << 20
"""bytes of DDP's last bucket, which no backward pass hides"""


class System(NamedTuple):
    """What a system's step costs per pair, and what its losses repeat in every process."""

    parameters: float
    """trained, CUHK-PEDES"""
    views: int
    """encodings of a pair"""
    cross: int
    """passes of the cross former for each pair"""
    passes: float
    """a training step in forward passes"""
    rows: float
    """products of a feature with identities or rows of a memory, for each pair, backward pass included"""
    tokens: bool = False
    """whether tokens are gathered, in bfloat16"""


SYSTEMS = {
    "IRRA": System(194.5e6, 1, 1, 3, 3 * 2 * 11003),
    "DGCMIA": System(149.6e6, 2, 0, 3, 68126),
    "PHP": System(165.4e6, 1, 0, 3, 0),
    "ECCL": System(5.9e6, 1, 0, 2.3, 2 * 2 * (11003 + 34054)),
    "ICLF": System(195.1e6, 1, 4, 3, 3 * 2 * 11003, tokens=True),
}


class Link(NamedTuple):
    """What the slowest connection between two neighbours in the ring of all GPUs carries."""

    gpus: int
    bytes_per_s: float
    latency: float
    """seconds for each collective"""


LINKS = {
    "8 GPUs, NVLink": Link(8, 360e9, 30e-6),
    "2 x 8, 100 Gb/s": Link(16, 12.5e9, 60e-6),
    "2 x 8, 200 Gb/s": Link(16, 25e9, 60e-6),
    "2 x 8, 3.2 Tb/s": Link(16, 320e9, 60e-6),
}
"""NVLink at 80 % of 450 GB/s in each direction; between nodes, what a node's network cards carry together"""


def gathered(system: System, pairs: int) -> float:
    """Bytes of the whole batch after the gathers of a forward pass."""
    features = system.views * 2 * pairs * WIDTH * 4
    return features + 3 * 8 * pairs + (pairs * (PATCHES + WORDS) * WIDTH * 2 if system.tokens else 0)


def times(system: System, link: Link, per_gpu: int) -> dict[str, float]:
    """Seconds of a step: what a GPU works alone, and what comes on top of it with the others."""
    pairs, share = per_gpu * link.gpus, (link.gpus - 1) / link.gpus
    forward = system.views * (IMAGE_FLOPS + TEXT_FLOPS) + system.cross * CROSS_FLOPS
    alone = per_gpu * system.passes * forward / (PEAK * SHARE)
    backward = alone * (system.passes - 1) / system.passes
    gradients = 2 * share * 4 * system.parameters / link.bytes_per_s
    last_bucket = 2 * share * min(BUCKET, 4 * system.parameters) / link.bytes_per_s
    collectives = 2 * (2 * system.views + 3 + 2 * system.tokens) * link.latency
    products = system.rows + 3 * 6 * pairs
    return {
        "alone": alone,
        "gathers": 2 * share * gathered(system, pairs) / link.bytes_per_s + collectives,
        "gradients that backward does not hide": max(gradients - backward, last_bucket),
        "losses repeated": share * 2 * pairs * WIDTH * products / FLOAT32_PEAK,
    }


def main() -> None:
    """Print the tables of the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=128, help="pairs per GPU [128]")
    per_gpu = parser.parse_args().pairs
    print(f"{per_gpu} pairs per GPU; gathered batch of 8 GPUs in MB, gradients in MB, step of one GPU alone in ms")
    for name, system in SYSTEMS.items():
        alone = times(system, LINKS["8 GPUs, NVLink"], per_gpu)["alone"]
        megabytes = gathered(system, 8 * per_gpu) / 1e6, 4 * system.parameters / 1e6
        print(f"| {name} | {megabytes[0]:.1f} | {megabytes[1]:.0f} | {1e3 * alone:.0f} |")
    print(f"efficiency: {' | '.join(LINKS)}; in brackets the ms on top: gathers, gradients, losses")
    for name, system in SYSTEMS.items():
        cells = []
        for link in LINKS.values():
            alone, *rest = times(system, link, per_gpu).values()
            cells.append(f"{alone / (alone + sum(rest)):.0%} ({', '.join(f'{1e3 * part:.1f}' for part in rest)})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
