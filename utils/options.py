"""Flags: each is declared once, as a field of a frozen dataclass beside the code that reads it.

This module turns such dataclasses into one argparse parser, a typed yaml reader and the saved ``configs.yaml``.
Order of precedence: dataclass default < ``--config_file`` yaml < command line.
"""

import dataclasses
import difflib
import logging
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from easydict import EasyDict

from utils import UserError
from utils.files import DECIMAL, WHOLE, read_yaml, write_text
from utils.nested_config import flattened

Group = TypeVar("Group")
GetOptions = Callable[[type[Group]], Group]
"""from an options dataclass to its instance: :meth:`Options.get`"""


def opt(
    default: Any,
    help: str,  # noqa: A002
    choices: tuple[str, ...] = (),
    aliases: tuple[str, ...] = (),
    *,
    joined: str = "",
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> Any:
    """A dataclass field that is also a flag: ``lr: float = opt(1e-5, "learning rate", above=0)``.

    With ``joined``, a text may be several of the ``choices`` with that between them. A number outside ``least`` <=
    value <= ``most``, or not greater than ``above``, is refused when flags are read.
    """
    about = {"help": help, "choices": choices, "aliases": aliases, "joined": joined}
    about |= {"least": least, "above": above, "most": most}
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag as the parser and the yaml reader see it."""

    name: str
    kind: type
    """element type: bool, int, float, str or Path"""
    default: Any
    help: str
    many: bool
    one_or_more: bool
    """whether several values are a tuple, but one is not (``Path | tuple[Path, ...]``)"""
    optional: bool
    choices: tuple[str, ...]
    aliases: tuple[str, ...]
    joined: str
    least: float
    above: float
    most: float

    def coerce(self, value: Any) -> Any:
        """Convert a yaml or command line value to this flag's type.

        Raises:
            UserError: names the flag, the value and what was expected.
        """
        if value is None:
            if self.optional:
                return None
            raise UserError(f"--{self.name}: no value given; expected {self.kind.__name__}")
        if self.one_or_more:
            values = tuple(map(self._one, value)) if isinstance(value, list | tuple) else (self._one(value),)
            if not values:
                raise UserError(f"--{self.name}: no value given; expected {_NAMES[self.kind]}")
            return values if len(values) > 1 else values[0]
        if not self.many:
            return self._one(value)
        items = value if isinstance(value, list | tuple) else [value]
        parts = [p for item in items for p in (item.replace(",", " ").split() if isinstance(item, str) else [item])]
        return tuple(self._one(part) for part in parts)

    def _one(self, value: Any) -> Any:
        try:
            converted = _CONVERT[self.kind](value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"--{self.name} {_short(value)}: expected {_NAMES[self.kind]}") from None
        parts = converted.split(self.joined) if self.joined else [converted]
        if self.choices and not set(parts) <= set(self.choices):
            several = f", or several joined by {self.joined}" if self.joined else ""
            raise UserError(f"--{self.name} {_short(value)}: choose one of {', '.join(self.choices)}{several}")
        if self.kind in (int, float) and not (self.above < converted and self.least <= converted <= self.most):
            limits = {"at least": self.least, "a number above": self.above, "at most": self.most}
            expected = " and ".join(f"{words} {limit}" for words, limit in limits.items() if math.isfinite(limit))
            raise UserError(f"--{self.name} {converted}: expected {expected}")
        return converted


_REPR = reprlib.Repr()

_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 80, 80

_short = _REPR.repr
"""a value for a message: yaml can make one of nested lists that would fill the memory if written out"""


def to_bool(value: Any) -> bool:
    """True or false, also spelt in words or as 1 and 0; a ValueError otherwise."""
    word = str(value).lower()
    if word not in (*_TRUE, "false", "0", "no", "off"):
        raise ValueError(value)
    return word in _TRUE


_TRUE = ("true", "1", "yes", "on")


def _to_int(value: Any) -> int:
    spelt_otherwise = isinstance(value, str) and not re.fullmatch(WHOLE, value)
    if spelt_otherwise or isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _to_float(value: Any) -> float:
    spelt_otherwise = isinstance(value, str) and not re.fullmatch(DECIMAL, value)
    if spelt_otherwise or isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _to_str(value: Any) -> str:
    if isinstance(value, list | tuple | dict):
        raise ValueError(value)
    return str(value)


_CONVERT = {bool: to_bool, int: _to_int, float: _to_float, str: _to_str, Path: lambda value: Path(_to_str(value))}

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def flags_of(*options: type) -> tuple[Flag, ...]:
    """The flags that dataclasses declare."""
    hints = {each: typing.get_type_hints(each) for each in options}
    return tuple(_flag(field, hints[each][field.name]) for each in options for field in dataclasses.fields(each))


def flag_names(*options: type) -> set[str]:
    """The names of the flags that dataclasses declare."""
    return {flag.name for flag in flags_of(*options)}


def _flag(field: dataclasses.Field, hint: Any) -> Flag:
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    first, *others = [part for part in parts if part is not type(None)]
    many = typing.get_origin(first) is tuple
    kind = typing.get_args(first)[0] if many else first
    assert kind in _CONVERT and others in ([], [tuple[kind, ...]]), f"flag {field.name}: no converter for {hint}"
    about = {"many": many, "one_or_more": bool(others), "optional": type(None) in parts}
    return Flag(field.name, kind, field.default, **about, **field.metadata)


class Options:
    """The values of a set of option dataclasses, with the flat form that is saved."""

    def __init__(
        self, groups: Sequence[type], file: Mapping[str, Any], line: Mapping[str, Any], config_file: Path | None
    ) -> None:
        """Every dataclass is filled once here, so that it can refuse values (UserError) before any work begins.

        Values by flag come from a ``file``, and from the command ``line``, which wins.
        """
        self._groups, self._file, self._line = groups, file, line
        self.config_file = config_file
        self._values = {flag.name: flag.default for flag in flags_of(*groups)} | file | line
        self._filled = {group: group(**{name: self._values[name] for name in flag_names(group)}) for group in groups}

    def get(self, group: type[Group]) -> Group:
        """An instance of one option dataclass, filled from the flags."""
        return self._filled[group]

    def based_on(self, saved: Path, ignored: Collection[str], lenient: bool = False) -> "Options":
        """The same command line over the flags of a saved run (instead of over ``--config_file``).

        ``saved`` is the run's configs.yaml; see :func:`read_config` for the other arguments, and errors.
        """
        file = read_config(saved, flags_of(*self._groups), ignored, self._line, lenient)
        return Options(self._groups, file, self._line, saved)

    def renamed(self, name: str, to: str) -> "Options":
        """The value given for one flag becomes that of another, where that one is not given beside it."""
        (flag,) = [flag for flag in flags_of(*self._groups) if flag.name == to]
        sources = []
        for source in (self._file, self._line):
            value = source.get(name)
            moved = {} if value is None else {to: flag.coerce(value)}
            sources.append(moved | {key: item for key, item in source.items() if key != name})
        return Options(self._groups, *sources, self.config_file)

    def replaced(self, **values: Any) -> "Options":
        """The same flags with some given other values, by the program rather than by the user."""
        return Options(self._groups, self._file, {**self._line, **values}, self.config_file)

    def given(self, name: str) -> bool:
        """Whether a flag came from the command line or from a file, rather than from its default."""
        return name in self._line or name in self._file

    def flat(self) -> dict[str, Any]:
        """Every flag and its value, as ``configs.yaml`` stores them (lists for tuples, text for paths)."""
        return {name: _plain(self._values[name]) for name in sorted(self._values)}

    def save(self, path: Path) -> None:
        """Write ``configs.yaml``; half of one would be read as a file with fewer flags, so it is written whole."""
        write_text(path, yaml.safe_dump(self.flat(), allow_unicode=True))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def read_flags(path: Path) -> dict[str, Any]:
    """The flags of a yaml file as it has them, but flat. Raises UserError."""
    return flattened(read_yaml(path), path)


def read_config(
    path: Path, flags: Iterable[Flag], ignored: Collection[str], given: Collection[str] = (), lenient: bool = False
) -> dict[str, Any]:
    """The flags of a yaml file, typed; see :func:`typed_flags`."""
    return typed_flags(read_flags(path), path, flags, ignored, given, lenient)


def typed_flags(
    content: Mapping[str, Any],
    path: Path,
    flags: Iterable[Flag],
    ignored: Collection[str] = (),
    given: Collection[str] = (),
    lenient: bool = False,
) -> dict[str, Any]:
    """The flags that a file holds, typed.

    A key in capitals that is a flag in small letters is that flag: forks of IRRA saved some twice.

    Args:
        content: of the file.
        path: the file.
        flags: that it may hold.
        ignored: keys without effect.
        given: flags that the command line overrides; their values in the file are not even checked.
        lenient: leave out, and log, other keys that no flag has.

    Raises:
        UserError: names the file, the key, the value, and the nearest flag to an unknown key.
    """
    values, unknown = {}, []
    by_name = {name: flag for flag in flags for name in (flag.name, *flag.aliases)}
    for key, value in content.items():
        flag = by_name.get(key) or (by_name.get(key.lower()) if key.lower() not in content else None)
        if key in ignored or (flag is None and key.lower() in by_name):
            continue
        if flag is None:
            unknown.append(key)
        elif flag.name not in given:
            try:
                values[flag.name] = flag.coerce(value)
            except UserError as error:
                raise UserError(
                    f"--config_file {path}: {error}, or give --{flag.name} on the command line, which wins"
                ) from None
    if unknown and not lenient:
        near = nearest(unknown[0], by_name)
        hint = f"; did you mean {near}?" if near else "; see --help for the flags"
        raise UserError(f"--config_file {path}: unknown flag {unknown[0]!r}{hint}")
    if unknown:
        logging.getLogger("descry").warning("%s: keys without a meaning here: %s", path, ", ".join(unknown))
    return values


def nearest(name: str, names: Collection[str]) -> str | None:
    """What was probably meant by a name that does not exist."""
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def load_train_configs(path: str | Path) -> EasyDict:
    """The flags of a saved run as an EasyDict, for scripts and notebooks; the framework itself uses typed options."""
    return EasyDict(read_flags(Path(path)))
