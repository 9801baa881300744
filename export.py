"""Export a run for other programs: ``python export.py --config_file RUN/configs.yaml --format F --output DIR``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Sequence

from exports.write import ExportOptions, exported_run, write_export
from model.feature_encoder import RUN_OPTIONS
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT, unread_by
from utils import UserError
from utils.command import parse, run_command
from utils.log import setup_logger

GROUPS = {"export": [ExportOptions], "as in training (from --config_file)": [*RUN_OPTIONS]}
"""every flag of export.py, by section of --help"""


def main(argv: Sequence[str] | None = None) -> None:
    """Export from flags, which are those of the run's ``configs.yaml`` unless given; see docs/exports.md."""
    options = parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT, unread=unread_by(GROUPS), lenient=True)
    if options.config_file is None:
        raise UserError("--config_file: say which run to export, as in --config_file logs/.../configs.yaml")
    setup_logger()
    flags = options.get(ExportOptions)
    write_export(exported_run(options), flags.format, flags.output)


if __name__ == "__main__":
    run_command(main)
