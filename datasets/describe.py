"""What lies in a folder, before hours are spent on it: ``python -m datasets.describe DATA``.

Recognises the data sets below the folder, or the folder itself as one, and prints for each: identities, images and
captions by split, images that are missing, and how long captions are in tokens of CLIP. A contact sheet shows some.

This is a command, which nothing imports: that is why it may use the tokenizer of ``model``.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.contact_sheet import save_sheet
from datasets.records import DataError
from datasets.summary import contact_sheet, describe, recognise
from model.backbones.clip_tokenizer import shared_tokenizer
from utils import UserError
from utils.command import Parser, run_command
from utils.log import setup_logger

PROGRAM = "python -m datasets.describe"
log = logging.getLogger("descry")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and write the contact sheets; see the module's docstring."""
    parser = Parser(
        prog=PROGRAM, description="What lies in a folder: data sets, their tables, a contact sheet of each."
    )
    parser.add_argument("root", type=Path, metavar="DATA", help="what --root_dir would be, or the folder of a data set")
    parser.add_argument("--text_length", type=int, default=77, metavar="N", help="tokens that a caption may have [77]")
    parser.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="for the contact sheets [.]")
    args = parser.parse_args(argv)
    if args.text_length < 3:
        raise UserError(f"--text_length {args.text_length}: expected at least 3, a word between start and end")
    setup_logger()
    found, faults = recognise(args.root), []
    for each in found:
        try:
            dataset = each.load()
        except DataError as error:
            faults.append(error)
            if len(found) > 1:
                log.warning("%s", error)
            continue
        print(f"{each.name}: --dataset_name {each.name} --root_dir {each.root}")
        for leak in dataset.leaks:
            log.warning("%s: %s", each.name, leak)
        print(describe(dataset, shared_tokenizer(), args.text_length).pretty())
        sheet = args.output / f"{each.name}.jpg"
        save_sheet(contact_sheet(dataset), sheet, "--output")
        print(f"contact sheet: {sheet}\n")
    if faults:
        raise faults[0] if len(found) == 1 else UserError(f"{len(faults)} of {len(found)} data sets cannot be used")


if __name__ == "__main__":
    sys.argv[0] = PROGRAM  # what an error begins with; it would be describe.py
    run_command(main)
