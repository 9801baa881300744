"""Search photos: ``python search.py --config_file RUN/configs.yaml --gallery PHOTOS --query "a man in black"``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
from collections.abc import Sequence

from datasets.options import DataOptions, data_options
from gallery.page import PageOptions, create_app, require_packages, serve
from gallery.queries import QueryOptions, answer
from gallery.ranking import RankingOptions
from gallery.results import write_answers
from gallery.session import SearchOptions, SearchSession
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import ParsingOptions
from model.backbones.spec import BackboneOptions
from model.build import model_options
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT, TRAINING_ONLY
from utils import UserError
from utils.command import parse, run_command
from utils.device import DeviceOptions
from utils.log import NEXT, setup_logger
from utils.options import Options, flag_names

GROUPS = {
    "search": [QueryOptions, SearchOptions, RankingOptions, PageOptions, DeviceOptions],
    "as in training (from --config_file)": [DataOptions, BackboneOptions, LoRAOptions, ParsingOptions],
}
"""every flag of search.py, by section of --help"""
UNREAD = TRAINING_ONLY | {
    name
    for members in (*data_options().values(), *model_options().values())
    for name in flag_names(*members) - flag_names(*(options for group in GROUPS.values() for options in group))
}
"""flags that a run's configs.yaml may hold and that mean nothing here"""

log = logging.getLogger("descry")


def read_flags(argv: Sequence[str] | None) -> Options:
    """Flags of the command line over those of the run's ``configs.yaml``, whoever wrote it.

    Raises:
        UserError: the run or the gallery is not named.
    """
    options = parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT, unread=UNREAD, lenient=True)
    if options.config_file is None:
        raise UserError("--config_file: say which run to search with, as in --config_file logs/.../configs.yaml")
    if options.get(SearchOptions).gallery is None:
        raise UserError("--gallery: say which folder of photos to search, as in --gallery PHOTOS")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Search from flags; see docs/search.md."""
    options = read_flags(argv)
    search, query, page = (options.get(group) for group in (SearchOptions, QueryOptions, PageOptions))
    texts = query.texts()
    if page.serve:
        require_packages()
    setup_logger()
    session = SearchSession(options)
    if search.update:
        session.update()
    searcher = session.open()
    if answers := answer(searcher, texts, query.query_image, query.k):
        sheets = write_answers(session.output, searcher.gallery, answers, len(searcher))
        log.info("contact sheets: %s", ", ".join(map(str, sheets)))
    if page.serve:
        serve(create_app(searcher, query.k), page.port)
    else:
        command = f"python search.py --config_file {options.config_file} --gallery {search.gallery} --serve"
        log.info("look around in a browser: %s", command, extra=NEXT)


if __name__ == "__main__":
    run_command(main)
