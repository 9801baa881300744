"""Search photos: ``python search.py --config_file RUN/configs.yaml --gallery PHOTOS --query "a man in black"``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
from collections.abc import Sequence
from datetime import datetime

from datasets.options import DataOptions
from gallery.options import PageOptions, QueryOptions, RankingOptions, SearchOptions
from model.feature_encoder import RUN_OPTIONS
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT, unread_by
from utils import UserError
from utils.command import parse, run_command
from utils.device import DeviceOptions
from utils.log import NEXT, setup_logger

GROUPS = {
    "search": [QueryOptions, SearchOptions, RankingOptions, PageOptions, DeviceOptions],
    "as in training (from --config_file)": [DataOptions, *RUN_OPTIONS],
}
"""every flag of search.py, by section of --help"""

log = logging.getLogger("descry")


def main(argv: Sequence[str] | None = None) -> None:
    """Search from flags, which are those of the run's ``configs.yaml`` unless given; see docs/search.md."""
    options = parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT, unread=unread_by(GROUPS), lenient=True)
    if options.config_file is None:
        raise UserError("--config_file: say which run to search with, as in --config_file logs/.../configs.yaml")
    search, query, page = (options.get(group) for group in (SearchOptions, QueryOptions, PageOptions))
    texts = query.texts()
    from gallery.open import open_searcher  # FAISS is slow to import, and --help must not wait for it
    from gallery.results import answer, write_answers

    setup_logger()
    searcher = open_searcher(options)
    if answers := answer(searcher, texts, query.query_image, query.k):
        folder = options.config_file.parent / "search" / datetime.now().strftime("%Y%m%d_%H%M%S")
        sheets = write_answers(search.output or folder, searcher, answers)
        log.info("contact sheets: %s", ", ".join(map(str, sheets)))
    if page.serve:
        from gallery.page import create_app
        from gallery.server import serve

        serve(create_app(searcher, query.k), page.port)
    else:
        command = f"python search.py --config_file {options.config_file} --gallery {search.gallery} --serve"
        log.info("look around in a browser: %s", command, extra=NEXT)


if __name__ == "__main__":
    run_command(main)
