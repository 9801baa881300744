"""The command line: flags to options, and how a command ends."""

import argparse
import errno
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from utils import UserError
from utils.distributed import join_processes, leave_processes, rank
from utils.log import RED, leave_dead_terminal, paint
from utils.options import Flag, Options, flags_of, nearest, read_config, to_bool


class _SetBool(argparse.Action):
    """``--flag`` sets true, ``--no_flag`` false; ``--flag true`` and ``--flag false`` work as well."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            value = to_bool(values or True)
        except ValueError:
            parser.error(f"{option_string} {values!r}: expected true or false, or nothing")
        setattr(namespace, self.dest, value != str(option_string).startswith("--no_"))


class Parser(argparse.ArgumentParser):
    """Flags in full only; the nearest one is suggested for a flag that does not exist."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=80),
            **settings,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """As argparse does."""
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [name for name in self._option_string_actions if name.startswith("--")]
            near = nearest(unknown[0].partition("=")[0], flags)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {near}?" if near else ""))
        return known


def build_parser(groups: Mapping[str, Sequence[type]], description: str) -> argparse.ArgumentParser:
    """One parser for titled lists of option dataclasses. Absent flags stay absent (no defaults are filled in)."""
    parser = Parser(description=description, usage="%(prog)s [flags]", argument_default=argparse.SUPPRESS)
    parser.add_argument(
        "--config_file", type=Path, metavar="FILE", help="yaml with any of these flags; the command line wins"
    )
    done: set[Flag] = set()  # option dataclasses may share a base, and may be listed twice
    for title, members in groups.items():
        section = parser.add_argument_group(title)
        for flag in flags_of(*members):
            if flag not in done:
                done.add(flag)
                _add_flag(section, flag)
    return parser


def _add_flag(section: Any, flag: Flag) -> None:
    names = [f"--{flag.name}", *(f"--{alias}" for alias in flag.aliases)]
    if len(flag.name) == 1:
        names.insert(0, f"-{flag.name}")
    text = flag.help.replace("%", "%%")
    if flag.choices:
        text += f" ({', '.join(flag.choices)})"
    if flag.kind is not bool and flag.default not in (None, "", ()):
        text += f" [{' '.join(map(str, flag.default)) if flag.many else flag.default}]"
    if flag.kind is bool:
        if flag.default:
            text += " [on; --no_" + flag.name + " switches it off]"
        section.add_argument(*names, dest=flag.name, action=_SetBool, nargs="?", metavar="BOOL", help=text)
        negated = [f"--no_{name[2:]}" for name in names]
        section.add_argument(*negated, dest=flag.name, action=_SetBool, nargs=0, help=argparse.SUPPRESS)
        return
    metavar = {int: "N", float: "X", str: "TEXT", Path: "PATH"}[flag.kind]
    nargs = "+" if flag.many or flag.one_or_more else None
    section.add_argument(*names, dest=flag.name, nargs=nargs, metavar=metavar, help=text)


def parse(
    groups: Mapping[str, Sequence[type]],
    argv: Sequence[str] | None,
    description: str,
    ignored: Collection[str] = (),
    unread: Collection[str] = (),
    lenient: bool = False,
) -> Options:
    """Parse a command line; wrong usage ends the program with one clear line, as argparse does.

    Args:
        groups: option dataclasses by section title.
        argv: arguments, None for those of the process.
        description: first paragraph of ``--help``.
        ignored: published flags that are accepted and have no effect here.
        unread: keys of ``--config_file`` without effect (a flag of that name can still be given on the line).
        lenient: leave out, and log, other keys of ``--config_file`` that no flag has.
    """
    parser = build_parser(groups, description)
    for name in ignored:
        spellings = {f"--{name}", f"--{name.replace('_', '-')}"}
        parser.add_argument(*sorted(spellings), dest=name, nargs="?", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    config_file = given.pop("config_file", None)
    everything = tuple(dict.fromkeys(options for members in groups.values() for options in members))
    flags = {flag.name: flag for flag in flags_of(*everything)}
    try:
        line = {name: flags[name].coerce(value) for name, value in given.items() if name in flags}
        file = {}
        if config_file is not None:
            file = read_config(config_file, flags.values(), {*ignored, *unread}, given=line, lenient=lenient)
        return Options(everything, file, line, config_file)
    except UserError as error:
        parser.error(str(error))


def named_first(argv: Sequence[str] | None, flag: str) -> list[str]:
    """A command line (None: that of the process) whose first words may stand without their ``flag``."""
    words = list(sys.argv[1:] if argv is None else argv)
    return [flag, *words] if words and not words[0].startswith("-") else words


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends the program wherever it is, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run a script's main function, with the processes that torchrun started beside this one.

    A :class:`UserError` ends in one line and exit code 2 (with its traceback where DESCRY_TRACEBACK is set), a signal
    in one line and 128 + its number.
    """
    try:
        with _signals_raise():
            join_processes()
            main(argv)
            leave_processes()
    except UserError as error:
        if os.environ.get("DESCRY_TRACEBACK"):
            raise
        _exit_with(f"error: {error}")
    except (RuntimeError, OSError) as error:
        message = _lack_of_resources(error)
        if message is None or os.environ.get("DESCRY_TRACEBACK"):
            raise
        _exit_with(f"error: {message}")
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        _exit_with(f"stopped by {signal.Signals(number).name}", 128 + number)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP are exceptions during the block; afterwards they do what they did before.

    In a script that is the default action: another Ctrl-C while Python winds up ends it without a traceback. What is
    ignored stays so (SIGHUP is with nohup).
    """
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        seen.append(number)
        leave_dead_terminal()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if _is_free(number)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
        if seen:  # a server took it as its end
            raise Terminated(seen[-1])
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_free(number: int) -> bool:
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def _lack_of_resources(error: Exception) -> str | None:
    """What to tell a user where the machine's limits ended the program; None for any other error."""
    # PyTorch raises the death of a loader process wherever the program happens to be.
    dead = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]*)", str(error))
    if dead:
        return (
            f"a process that loads images died: pid {dead[1]} {dead[2].strip()}. Usually memory, or the shared memory "
            "in /dev/shm, is too small: use fewer --num_workers or a smaller --batch_size. Checkpoints are intact"
        )
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC and not isinstance(error, UserError):
        shared = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
        return (
            f"no space left on a device. Where loader processes are used, that is often shared memory: /dev/shm has "
            f"{shared / 1e6:.1f} MB free; enlarge it, or use --num_workers 0. Otherwise make room on the disk"
        )
    if number == errno.EMFILE or re.search(r"[Tt]oo many open files|ancdata", str(error)):
        return "too many open files: raise the limit (ulimit -n 4096) or use fewer --num_workers; nothing is lost"
    return None


def _exit_with(message: str, code: int = 2) -> NoReturn:
    who = f"{Path(sys.argv[0]).name}{f' (process {rank()})' if rank() else ''}"
    with suppress(OSError):  # the terminal may be gone
        print(paint(f"{who}: {message}", RED, sys.stderr), file=sys.stderr)
    sys.exit(code)
