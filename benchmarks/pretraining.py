"""Pre-training on paper: hours, bytes and cores for five million images on 8 GPUs and on 4 nodes; nothing is measured.

The arithmetic of ``benchmarks.scaling`` with 128 pairs per GPU and sdm alone; the loader gives what
``benchmarks.shards_loader`` measured for one core.
"""

import argparse

from benchmarks.scaling import LINKS, Link, System, times

SDM = System(149.6e6, 1, 0, 3, 0)
"""plain pre-training of ViT-B/16: towers only"""
PER_GPU = 128
NODES = {
    "8 GPUs, NVLink": LINKS["8 GPUs, NVLink"],
    "4 x 8, 100 Gb/s": Link(32, 12.5e9, 60e-6),
    "4 x 8, 200 Gb/s": Link(32, 25e9, 60e-6),
    "4 x 8, 3.2 Tb/s": Link(32, 320e9, 60e-6),
}


def main() -> None:
    """Print the table of docs/pretraining.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=float, default=5e6)
    parser.add_argument("--captions", type=float, default=2, help="of each image, all of them visited")
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--image_bytes", type=float, default=15e3, help="JPEG at 384 x 128")
    parser.add_argument("--core", type=float, default=1176, help="pairs per second that one core loads")
    args = parser.parse_args()
    pairs = args.images * args.captions * args.epochs
    shards = args.images * (args.image_bytes + 4096)  # three heads, padding, and the texts
    index = args.images * (8 + 4 + 8 + 8 + args.captions * (8 + 130))
    print(f"shards {shards / 1e9:.0f} GB, index {index / 1e9:.1f} GB, {pairs / 1e6:.0f} million pairs")
    for name, link in NODES.items():
        step = sum(times(SDM, link, PER_GPU).values())
        alone = times(SDM, link, PER_GPU)["alone"]
        rate = PER_GPU * link.gpus / step
        nodes = link.gpus / 8
        print(
            f"| {name} | {1e3 * step:.0f} | {alone / step:.0%} | {rate:,.0f} | {pairs / rate / 3600:.1f} | "
            f"{rate / nodes * args.image_bytes / 1e6:.0f} | {rate / nodes / args.core:.0f} |"
        )


if __name__ == "__main__":
    main()
