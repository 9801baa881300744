"""Person images in tar files: ``python -m datasets.shards import --annotation FILE --images DIR --output DIR``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prettytable import PrettyTable

from datasets.annotations import first_few
from datasets.contact_sheet import Row, Tile, draw_sheet, save_sheet
from datasets.shards.cleaning import REASONS
from datasets.shards.forms import FORMS
from datasets.shards.importing import LEFT_OUT, import_shards
from datasets.shards.index import ShardIndex
from datasets.shards.plan import ImportOptions
from datasets.shards.verify import rebuild_index, verify_shards
from utils import UserError
from utils.command import Parser, run_command
from utils.device import available_cores

PROGRAM = "python -m datasets.shards"


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="Put person images with captions into tar files, and look at those.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_import(commands.add_parser("import", help="from annotation files and images to a folder of shards"))
    for name, text in (
        ("check", "read everything of a folder of shards and compare it with the index"),
        ("info", "what a folder of shards holds"),
        ("sample", "draw some images with their captions"),
        ("index", "make the index of a folder of tar files"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("folder", type=Path, metavar="DIR", help="folder of shards")
        if name in ("check", "index"):
            _add_workers(command)
        if name == "sample":
            command.add_argument("--output", type=Path, required=True, metavar="FILE", help="picture (.jpg, .png)")
            command.add_argument("--count", type=_positive, default=18, metavar="N", help="images [18]")
            command.add_argument("--seed", type=int, default=0, metavar="N", help="which ones [0]")
    return parser


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.description = "Import annotation files and images; a stopped import continues."
    add = parser.add_argument
    add("--form", default="auto", choices=("auto", *FORMS), metavar="NAME", help=f"auto, {', '.join(FORMS)} [auto]")
    add(
        "--annotation",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="joined by image where several name it",
    )
    add("--images", type=Path, metavar="DIR", help="folder that the paths of the annotation start from")
    add("--output", type=Path, required=True, metavar="DIR", help="folder of shards to make")
    add("--resize", type=_positive, nargs=2, metavar=("H", "W"), help="encode images anew at this size [as they are]")
    add("--quality", type=_positive, default=95, metavar="N", help="of JPEG with --resize [95]")
    add("--split", default="train", metavar="NAME", help="leave out records of other splits [train]")
    add("--caption_keys", nargs="+", default=(), metavar="KEY", help="where captions are, in forms with several places")
    add("--bad_records", default="error", choices=("error", "skip"), metavar="WHAT", help="error or skip [error]")
    text = "leave out images that are in val or test of these data sets"
    add("--exclude_like", type=Path, nargs="+", default=(), metavar="DIR", help=text)
    add("--shard_size", type=_positive, default=5000, metavar="N", help="most images in a shard [5000]")
    _add_workers(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", type=_positive, default=available_cores(), metavar="N", help="processes [cores]")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Raises UserError, which names the flag or the file."""
    given = vars(_parser().parse_args(argv))
    {"import": _import, "check": _check, "info": _info, "sample": _sample, "index": _index}[given.pop("command")](given)


def _import(given: dict[str, Any]) -> None:
    output, workers = given.pop("output"), given.pop("workers")
    given["annotation"], given["exclude_like"] = tuple(given["annotation"]), tuple(given["exclude_like"])
    if given["quality"] > 100:
        raise UserError(f"--quality {given['quality']}: at most 100")
    index = import_shards(ImportOptions(**given), output, workers)
    print(_described(index))
    if index.about["left_out"]:
        print(f"what was left out, one by one: {output / LEFT_OUT}")


def _check(given: dict[str, Any]) -> None:
    index = ShardIndex(given["folder"])
    if faults := verify_shards(index, given["workers"]):
        raise UserError(f"{len(faults)} fault{'s' * (len(faults) > 1)}: {first_few(faults)}")
    print(f"{index.folder}: all {index.images:,} images in {len(index.shards):,} shards are as the index says")


def _info(given: dict[str, Any]) -> None:
    print(_described(ShardIndex(given["folder"])))


def _index(given: dict[str, Any]) -> None:
    print(_described(rebuild_index(given["folder"], given["workers"])))


def _described(index: ShardIndex) -> PrettyTable:
    table = PrettyTable([str(index.folder), ""], align="r")
    table.align[str(index.folder)] = "l"
    count = index.captions / index.images if index.images else 0
    size = sum(shard[2] for shard in index.about["shards"])
    resize = index.about.get("resize")
    rows = {
        "images": f"{index.images:,}",
        "captions": f"{index.captions:,} ({count:.2f} of an image)",
        "identities": f"{index.identities:,}" if index.identities else "not known",
        "shards": f"{len(index.shards):,} ({size / 1e9:,.2f} GB)",
        "size of the images": f"{resize[0]} x {resize[1]}" if resize else "as published",
    }
    rows |= {f"left out: {REASONS[name]}": f"{number:,}" for name, number in index.about.get("left_out", {}).items()}
    table.add_rows(list(rows.items()))
    return table


def _sample(given: dict[str, Any]) -> None:
    index, target = ShardIndex(given["folder"]), given["output"]
    if not index.images:
        raise UserError(f"{index.folder}: holds no image")
    chosen = np.random.default_rng(given["seed"]).permutation(index.images)[: given["count"]].tolist()
    rows = [Row("\n".join(index.captions_of(image)), [Tile(Path(str(image)))]) for image in chosen]
    sheet = draw_sheet(
        rows,
        across=3,
        decode=lambda path: index.picture(int(path.name)),
    )
    save_sheet(sheet, target, "--output")
    print(target)


if __name__ == "__main__":
    sys.argv[0] = PROGRAM  # what an error begins with; it would be __main__.py
    run_command(main)
