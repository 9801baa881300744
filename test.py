"""Test a trained model: ``python test.py --config_file RUN/configs.yaml``; other flags override the run's."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
from collections.abc import Sequence

from analysis.cross_domain import CrossDomainOptions, cross_domain
from analysis.evaluated_run import ReportOptions
from analysis.testing import TEST_GROUPS, UNREAD, each_dataset, evaluate_run
from datasets.options import data_options
from model.build import model_options
from processor.saved_flags import PUBLISHED_WITHOUT_EFFECT
from utils.command import parse, run_command
from utils.log import NEXT, setup_logger
from utils.options import Options

GROUPS = {
    **TEST_GROUPS,
    "cross-domain": [CrossDomainOptions],
    **data_options(),
    **model_options(),
}
"""every flag of test.py, by section of --help"""

log = logging.getLogger("descry")


def read_flags(argv: Sequence[str] | None) -> Options:
    """Flags of the command line over those of the run's ``configs.yaml``, whoever wrote it."""
    return parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT, UNREAD, lenient=True)


def test_run(options: Options) -> None:
    """Test the run of ``--config_file``."""
    for one in each_dataset(options):
        run = evaluate_run(one)
        if options.get(ReportOptions).report:
            from analysis.report import write_report  # needs Jinja2, which testing alone does not

            log.info("open in a browser: %s", write_report(run), extra=NEXT)
    if not options.get(ReportOptions).report:
        log.info("see what it gets wrong: python test.py --config_file %s --report", options.config_file, extra=NEXT)


def main(argv: Sequence[str] | None = None) -> None:
    """Test from flags; see README.md."""
    options = read_flags(argv)
    setup_logger()
    if options.get(CrossDomainOptions).cross_domain:
        cross_domain(options, {*PUBLISHED_WITHOUT_EFFECT, *UNREAD})
    else:
        test_run(options)


if __name__ == "__main__":
    run_command(main)
