"""TODO"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.mannequins.draw import LAYOUTS, NAME, MannequinOptions, ensure
from datasets.mannequins.sheet import contact_sheet
from utils.options import flags_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.mannequins",
        description="Draw a person retrieval data set: pedestrian figures with captions and attributes.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=80),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--root", type=Path, default=Path("data"), metavar="PATH", help="parent of the new folder [data]"
    )
    parser.add_argument(
        "--layout",
        default=NAME,
        choices=LAYOUTS,
        metavar="NAME",
        help=f"folder, files and keys as in {', '.join(LAYOUTS)} [{NAME}]",
    )
    for flag in flags_of(MannequinOptions):
        choices = f" ({', '.join(flag.choices)})" if flag.choices else ""
        parser.add_argument(
            "--" + flag.name.removeprefix("mannequin_"),
            f"--{flag.name}",
            dest=flag.name,
            default=flag.default,
            metavar={int: "N", str: "TEXT"}[flag.kind],
            help=f"{flag.help}{choices} [{flag.default}]",
        )
    parser.add_argument("--workers", type=int, metavar="N", help="processes; changes nothing but the time [cores]")
    parser.add_argument("--contact_sheet", type=Path, metavar="FILE", help="also write a picture of some identities")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    given = vars(parser.parse_args(argv))
    try:
        options = MannequinOptions(**{flag.name: flag.coerce(given[flag.name]) for flag in flags_of(MannequinOptions)})
        folder = ensure(given["root"], options, given["layout"], given["workers"])
        print(f"{folder}: {LAYOUTS[given['layout']].file}, imgs/")
        if given["contact_sheet"]:
            contact_sheet(folder, LAYOUTS[given["layout"]].file, given["contact_sheet"])
            print(given["contact_sheet"])
    except ValueError as error:
        text = str(error).replace("--mannequin_", "--").replace("--root_dir", "--root")
        parser.exit(2, f"error: {text}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; nothing is left behind\n")


if __name__ == "__main__":
    main()
