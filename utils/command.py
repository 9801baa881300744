"""The command line: flags to options, and how a command ends."""

import argparse
import os
import re
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.distributed import join_processes, leave_processes, rank
from utils.log import RED, paint
from utils.options import Flag, Options, _to_bool, flags_of, read_config


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults in the help, at most 80 columns, nothing said where there is no default worth naming."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=80)

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""


class _SetBool(argparse.Action):
    """``--flag`` sets true, ``--no_flag`` false; ``--flag true`` and ``--flag false`` work as well."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        value = True if not values else _to_bool_or_exit(parser, option_string, values)
        setattr(namespace, self.dest, value != str(option_string).startswith("--no_"))


def _to_bool_or_exit(parser: argparse.ArgumentParser, flag: str | None, value: str) -> bool:
    try:
        return _to_bool(value)
    except ValueError:
        parser.error(f"{flag} {value!r}: expected true or false, or nothing")


def build_parser(groups: Mapping[str, Sequence[type]], description: str) -> argparse.ArgumentParser:
    """One parser for titled lists of option dataclasses. Absent flags stay absent (no defaults are filled in)."""
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s [flags]",
        formatter_class=_Formatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config_file", type=Path, metavar="FILE", help="yaml with any of these flags; the command line wins"
    )
    done: set[Flag] = set()  # option dataclasses may share a base, and may be listed twice
    for title, members in groups.items():
        section = parser.add_argument_group(title)
        for options in members:
            for flag in flags_of(options):
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
        text += f" [{_show(flag.default)}]"
    if flag.kind is bool:
        if flag.default:
            text += " [on; --no_" + flag.name + " switches it off]"
        section.add_argument(*names, dest=flag.name, action=_SetBool, nargs="?", metavar="BOOL", help=text)
        section.add_argument(
            *(f"--no_{n[2:]}" for n in names), dest=flag.name, action=_SetBool, nargs=0, help=argparse.SUPPRESS
        )
        return
    metavar = {int: "N", float: "X", str: "TEXT", Path: "PATH"}[flag.kind]
    section.add_argument(*names, dest=flag.name, nargs="+" if flag.many else None, metavar=metavar, help=text)


def _show(value: Any) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)


def parse(
    groups: Mapping[str, Sequence[type]],
    argv: Sequence[str] | None,
    description: str,
    ignored: Mapping[str, str] = types.MappingProxyType({}),
    unread: Sequence[type] = (),
    lenient: bool = False,
) -> Options:
    """Parse a command line; wrong usage ends the program with one clear line, as argparse does.

    Args:
        groups: option dataclasses by section title.
        argv: arguments, None for those of the process.
        description: first paragraph of ``--help``.
        ignored: published flags that are accepted and have no effect here, with the reason.
        unread: option dataclasses whose flags a ``--config_file`` may hold without effect.
        lenient: leave out, and log, other keys of ``--config_file`` that no flag has.
    """
    parser = build_parser(groups, description)
    for name in ignored:
        spellings = {f"--{name}", f"--{name.replace('_', '-')}"}
        parser.add_argument(*sorted(spellings), dest=name, nargs="?", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    everything = tuple(dict.fromkeys(options for members in groups.values() for options in members))
    flags = {flag.name: flag for options in everything for flag in flags_of(options)}
    defaults = {name: flag.default for name, flag in flags.items()}
    try:
        from_file, config_file = {}, given.pop("config_file", None)
        if config_file is not None:
            silent = {*ignored, *(flag.name for options in unread for flag in flags_of(options))}
            from_file = read_config(config_file, flags, silent, lenient)
        from_line = {name: flags[name].coerce(value) for name, value in given.items() if name in flags}
        return Options(everything, defaults, from_file, from_line, config_file)
    except ValueError as error:
        parser.error(str(error))


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run a script's main function, with the processes that torchrun started beside this one.

    An error that a user can mend ends in one line and exit code 2.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # the scripts' first lines leave it so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        join_processes()
        main(argv)
        leave_processes()
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("DESCRY_TRACEBACK"):
            raise
        where = f" (process {rank()})" if rank() else ""
        line = f"{Path(sys.argv[0]).name}: error{where}: {_in_our_words(error)}"
        print(paint(line, RED, sys.stderr), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _in_our_words(error: Exception) -> str:
    """The message of an error; PyTorch raises that of a dead loader process wherever the program happens to be."""
    dead = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]*)", str(error))
    if not dead:
        return str(error)
    return (
        f"a process that loads images died: pid {dead[1]} {dead[2].strip()}. Usually memory, or the shared memory in "
        "/dev/shm, is too small: give fewer --num_workers or a smaller --batch_size. Checkpoints are untouched"
    )
