"""Flags: each is declared once, as a field of a frozen dataclass beside the code that reads it.

This module turns such dataclasses into one argparse parser, a typed yaml reader and the saved ``configs.yaml``.
Order of precedence: dataclass default < ``--config_file`` yaml < command line.
"""

import argparse
import dataclasses
import difflib
import logging
import math
import reprlib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from easydict import EasyDict

from utils.files import replacing


def opt(default: Any, help: str, *, choices: Sequence[str] | None = None, aliases: Sequence[str] = ()) -> Any:  # noqa: A002
    """A dataclass field that is also a flag: ``lr: float = opt(1e-5, "learning rate")``."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "aliases": tuple(aliases)})


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag as the parser and the yaml reader see it."""

    name: str
    kind: type
    """element type: bool, int, float, str or Path"""
    default: Any
    help: str
    many: bool
    optional: bool
    choices: tuple[str, ...] | None
    aliases: tuple[str, ...]

    def coerce(self, value: Any) -> Any:
        """Convert a yaml or command line value to this flag's type.

        Raises:
            ValueError: names the flag, the value and what was expected.
        """
        if value is None:
            if self.optional:
                return None
            raise ValueError(f"--{self.name}: no value given; expected {self.kind.__name__}")
        if not self.many:
            return self._one(value)
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        items = value if isinstance(value, list | tuple) else [value]
        parts = [p for item in items for p in (item.replace(",", " ").split() if isinstance(item, str) else [item])]
        return tuple(self._one(part) for part in parts)

    def _one(self, value: Any) -> Any:
        try:
            converted = _CONVERT[self.kind](value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"--{self.name} {_short(value)}: expected {_NAMES[self.kind]}") from None
        if self.choices and converted not in self.choices:
            raise ValueError(f"--{self.name} {_short(value)}: choose one of {', '.join(self.choices)}")
        return converted


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 80, 80
_short = _REPR.repr
"""a value for a message: yaml can make one of nested lists that would fill the memory if written out"""


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def _to_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _to_str(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        raise ValueError(value)
    return str(value)


_CONVERT = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str, Path: lambda value: Path(_to_str(value))}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def flags_of(options: type) -> tuple[Flag, ...]:
    """The flags that a dataclass declares."""
    hints = typing.get_type_hints(options)
    return tuple(_flag(field, hints[field.name]) for field in dataclasses.fields(options))


def _flag(field: dataclasses.Field, hint: Any) -> Flag:
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if optional:
        (hint,) = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    many = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if many else hint
    assert kind in _CONVERT, f"flag {field.name}: no converter for {kind}"
    meta = field.metadata
    choices = tuple(meta["choices"]) if meta["choices"] else None
    return Flag(field.name, kind, field.default, meta["help"], many, optional, choices, meta["aliases"])


class Options:
    """The values of a set of option dataclasses, with the flat form that is saved."""

    def __init__(
        self,
        groups: Sequence[type],
        defaults: Mapping[str, Any],
        from_file: Mapping[str, Any],
        line: Mapping[str, Any],
        config_file: Path | None,
    ) -> None:
        """Every dataclass is filled once here, so that it can refuse values before any work begins.

        Raises:
            ValueError: a dataclass refuses a value.
        """
        self._groups, self._defaults, self._from_file, self._line = groups, defaults, from_file, line
        self.config_file = config_file
        self._values = {**defaults, **from_file, **line}
        self._filled = {
            group: group(**{flag.name: self._values[flag.name] for flag in flags_of(group)}) for group in groups
        }

    def get(self, group: type) -> Any:
        """An instance of one option dataclass, filled from the flags."""
        return self._filled[group]

    def over(self, saved: Path, ignored: Collection[str], lenient: bool = False) -> "Options":
        """The same command line over the flags of a saved run (instead of over ``--config_file``).

        Args:
            saved: the run's ``configs.yaml``.
            ignored: keys of it that have no effect.
            lenient: leave out, and log, other keys that no flag has.

        Raises:
            ValueError: names the file and the flag.
        """
        flags = {flag.name: flag for group in self._groups for flag in flags_of(group)}
        from_file = read_config(saved, flags, ignored, lenient)
        return Options(self._groups, self._defaults, from_file, self._line, saved)

    def moved(self, name: str, to: str) -> "Options":
        """The same flags with the value given for one moved to another, where that one is not given beside it."""
        sources = []
        for source in (self._from_file, self._line):
            value = source.get(name)
            moved = {} if value is None else {to: value}
            sources.append({**moved, **{key: item for key, item in source.items() if key != name}})
        return Options(self._groups, self._defaults, *sources, self.config_file)

    def changed(self, **values: Any) -> "Options":
        """The same flags with some given other values, by the program rather than by the user."""
        return Options(self._groups, self._defaults, self._from_file, {**self._line, **values}, self.config_file)

    def given(self, name: str) -> bool:
        """Whether a flag came from the command line or from a file, rather than from its default."""
        return name in self._line or name in self._from_file

    def flat(self) -> dict[str, Any]:
        """Every flag and its value, as ``configs.yaml`` stores them (lists for tuples, text for paths)."""
        return {name: _plain(self._values[name]) for name in sorted(self._values)}

    def save(self, path: Path) -> None:
        """Write ``configs.yaml``; half of one would be read as a file with fewer flags, so it is written whole."""
        with replacing(path) as file:
            file.write(yaml.safe_dump(self.flat(), sort_keys=True, allow_unicode=True).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


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


class _PlainLoader(yaml.SafeLoader):
    """Safe yaml plus the one tag that argparse-era run directories carry: ``!!python/tuple``, read as a list."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse ``<<``: flags have no use for it, and nested ones multiply until the memory is full."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(problem="'<<' is not read", problem_mark=node.start_mark)


_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: loader.construct_sequence(node, deep=True)
)


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat yaml file, without executing anything.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)  # noqa: S506
    except FileNotFoundError:
        raise ValueError(f"--config_file {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--config_file {path}: cannot be read ({error})") from None
    except Exception as error:  # PyYAML lets through what int, date or base64 say to what it has recognised as theirs
        first = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"--config_file {path}: not plain yaml ({first})") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"--config_file {path}: expected 'flag: value' lines, found {type(content).__name__}")
    return content


def read_config(
    path: Path, flags: Mapping[str, Flag], ignored: Collection[str], lenient: bool = False
) -> dict[str, Any]:
    """The flags of a yaml file, typed; an unknown key is an error that names the nearest flag, or left out and logged.

    Raises:
        ValueError: names the file, the key and the value.
    """
    values, unknown = {}, []
    by_name = {name: flag for flag in flags.values() for name in (flag.name, *flag.aliases)}
    for key, value in read_yaml(path).items():
        if key in by_name:
            try:
                values[by_name[key].name] = by_name[key].coerce(value)
            except ValueError as error:
                raise ValueError(f"--config_file {path}: {error}") from None
        elif key not in ignored:
            unknown.append(key)
    if unknown and not lenient:
        near = difflib.get_close_matches(unknown[0], by_name, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; see --help for the flags"
        raise ValueError(f"--config_file {path}: unknown flag {unknown[0]!r}{hint}")
    if unknown:
        logging.getLogger("descry").warning("%s: keys without a meaning here: %s", path, ", ".join(unknown))
    return values


def load_train_configs(path: str | Path) -> EasyDict:
    """The flags of a saved run as an EasyDict, for scripts and notebooks; the framework itself uses typed options."""
    return EasyDict(read_yaml(Path(path)))
