"""Where messages go: the terminal (through tqdm, so that progress bars stay whole) and a file in the run directory."""

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path

import torch
from prettytable import PrettyTable
from torch import Tensor
from tqdm import tqdm

from utils.distributed import is_main
from utils.terminal import YELLOW, paint


class _BesideProgressBars(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        stream, text = sys.stderr if warning else sys.stdout, self.format(record)
        colour = YELLOW if warning else getattr(record, "colour", None)
        tqdm.write(paint(text, colour, stream) if colour else text, file=stream)


class _LogFile(logging.FileHandler):
    """Says once that it cannot be written, on a full disk for instance, and lets the program go on."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging calls it)
        if not self._said:
            tqdm.write(f"{self.baseFilename}: lines are missing ({sys.exc_info()[1]})", file=sys.stderr)
        self._said = True


def setup_logger() -> logging.Logger:
    """The ``descry`` logger, writing to the terminal; what it says is kept until :func:`log_to` names a file.

    Only the main process speaks.
    """
    logger = logging.getLogger("descry")
    logger.setLevel(logging.INFO if is_main() else logging.ERROR)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with suppress(OSError):  # of what a full disk left over
            handler.close()
    terminal = _BesideProgressBars()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(terminal)
    logger.addHandler(MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False))
    return logger


def log_to(path: Path) -> None:
    """Append to a file, from what was said since :func:`setup_logger` on; in the main process."""
    if not is_main():
        return
    logger = logging.getLogger("descry")
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for kept in [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]:
        kept.setTarget(file)
        kept.flush()
        logger.removeHandler(kept)
    logger.addHandler(file)


def hide_bar() -> bool | None:
    """What tqdm takes as ``disable``: no bar where there is no terminal, nor in any but the main process."""
    return None if is_main() else True


METRICS = ("R1", "R5", "R10", "mAP", "mINP")


def metrics_table(rows: Mapping[str, Mapping[str, float]], title: str = "task") -> PrettyTable:
    """The field's table, three decimals: one row per task (t2i, i2t), or per what ``title`` says."""
    table = PrettyTable([title, *METRICS])
    for task, metrics in rows.items():
        table.add_row([task, *(f"{metrics[name]:.3f}" for name in METRICS)])
    return table


def expert_table(use: Mapping[str, Tensor]) -> PrettyTable:
    """Tokens that chose each expert, and the entropy of an expert's share in nats (at most the log of their number).

    Args:
        use: (blocks, experts) counts by modality.
    """
    experts = next(iter(use.values())).shape[1]
    table = PrettyTable(["block", "tokens of", *(f"expert {number}" for number in range(experts)), "entropy"])
    for block in range(len(next(iter(use.values())))):
        for name, counts_NE in use.items():
            share_E = counts_NE[block].double() / counts_NE[block].sum().clamp(min=1)
            entropy = torch.special.entr(share_E).sum().item()
            table.add_row([block, name, *(f"{count:,}" for count in counts_NE[block].tolist()), f"{entropy:.3f}"])
    table.align = "r"
    return table


def counts_table(splits: Mapping[str, tuple[int, int, int]]) -> PrettyTable:
    """Identities, images and captions of every split."""
    table = PrettyTable(["split", "identities", "images", "captions"])
    for split, numbers in splits.items():
        table.add_row([split, *(f"{number:,}" for number in numbers)])
    table.align = "r"
    return table
