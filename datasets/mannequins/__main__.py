"""Draw a data set: ``python -m datasets.mannequins --root DATA --layout CUHK-PEDES``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from datasets.contact_sheet import Row, Tile, draw_sheet, save_sheet
from datasets.mannequins.draw import ensure
from datasets.mannequins.options import LAYOUTS, NAME, Layout, MannequinOptions
from utils import UserError
from utils.command import Parser, run_command
from utils.options import flags_of

PROGRAM = "python -m datasets.mannequins"


def _parser() -> Parser:
    description = "Draw a person retrieval data set: pedestrian figures with captions and attributes."
    parser = Parser(prog=PROGRAM, description=description)
    add = parser.add_argument
    add("--root", type=Path, default=Path("data"), metavar="PATH", help="parent of the new folder [data]")
    as_in = f"folder, files and keys as in {', '.join(LAYOUTS)} [{NAME}]"
    add("--layout", default=NAME, choices=LAYOUTS, metavar="NAME", help=as_in)
    for flag in flags_of(MannequinOptions):
        choices = f" ({', '.join(flag.choices)})" if flag.choices else ""
        add(
            "--" + flag.name.removeprefix("mannequin_"),
            f"--{flag.name}",
            dest=flag.name,
            default=flag.default,
            metavar={int: "N", str: "TEXT"}[flag.kind],
            help=f"{flag.help}{choices} [{flag.default}]",
        )
    add("--workers", type=int, metavar="N", help="processes; changes nothing but the time [cores]")
    add("--contact_sheet", type=Path, metavar="FILE", help="also write a picture of some identities")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Raises UserError, which names the flag and what it should be."""
    given = vars(_parser().parse_args(argv))
    layout = LAYOUTS[given["layout"]]
    try:
        options = MannequinOptions(**{flag.name: flag.coerce(given[flag.name]) for flag in flags_of(MannequinOptions)})
        folder = ensure(given["root"], options, given["layout"], given["workers"])
        print(f"{folder}: {layout.file}, imgs/")
        if given["contact_sheet"]:
            write_contact_sheet(folder, layout, given["contact_sheet"])
            print(given["contact_sheet"])
    except UserError as error:
        # In train.py these flags have longer names.
        raise UserError(str(error).replace("--mannequin_", "--").replace("--root_dir", "--root")) from None


def write_contact_sheet(folder: Path, layout: Layout, target: Path) -> None:
    """Write a picture (.jpg, .png) of the first six identities that have three images, with a caption of each.

    Raises UserError if no identity has three images, or the file cannot be written.
    """
    records = json.loads((folder / layout.file).read_text(encoding="utf-8"))
    people = [list(group) for _, group in groupby(records, key=lambda record: record["id"])]
    rows = [
        Row(group[0]["captions"][0], [Tile(folder / "imgs" / record[layout.key]) for record in group[:3]])
        for group in people
        if len(group) > 2
    ]
    if not rows:
        raise UserError(f"--contact_sheet {target}: no identity has 3 images; draw more images of each")
    save_sheet(draw_sheet(rows[:6], (116, 290), across=3, caption_width=0), target, "--contact_sheet")


if __name__ == "__main__":
    sys.argv[0] = PROGRAM  # what an error begins with; it would be __main__.py
    run_command(main)
