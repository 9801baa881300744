"""JSON files larger than the memory: the elements of the outermost list or object, one after another."""

import json
from collections.abc import Iterator
from json.decoder import scanstring
from pathlib import Path
from typing import Any, TextIO

from datasets.annotations import DataError

_CHUNK = 1 << 20
_WHITESPACE = " \t\n\r"
_AFTER = {*_WHITESPACE, *",:]}"}
"""what may stand behind a key or value"""


def json_kind(path: Path) -> type | None:
    """``dict`` or ``list`` as the file's outermost value is an object or a list; None where it is something else.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            start = file.read(4096).lstrip(_WHITESPACE)[:1]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        return None
    return {"{": dict, "[": list}.get(start)


def json_elements(path: Path) -> Iterator[Any]:
    """The elements of a JSON list, or the (key, value) pairs of a JSON object; a key may occur more than once.

    Memory does not depend on the size of the file.

    Raises:
        DataError: the file cannot be read, is not JSON, or is cut off; names the element, counted from 0.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Reader(file, path).elements()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply; expected a flat list of records") from None


class _Reader:
    """A window of text that moves through the file."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._ended = "", 0, False
        self._decode = json.JSONDecoder().raw_decode
        self._count = 0

    def elements(self) -> Iterator[Any]:
        opening = self._next_character()
        closing = {"[": "]", "{": "}"}.get(opening)
        if closing is None:
            raise DataError(f"{self._path}: expected a JSON list or object")
        self._at += 1
        if self._next_character() == closing:
            return
        while True:
            if opening == "{":
                key = self._whole(self._key)
                if self._next_character() != ":":
                    raise self._fault("':' expected after a key")
                self._at += 1
                yield key, self._value()
            else:
                yield self._value()
            self._count += 1
            mark = self._next_character()
            if mark == closing:
                return
            if mark != ",":
                raise self._fault(f"',' or '{closing}' expected")
            self._at += 1

    def _key(self) -> tuple[str, int]:
        if self._text[self._at] != '"':
            raise self._fault("a key in double quotes expected")
        return scanstring(self._text, self._at + 1)

    def _value(self) -> Any:
        return self._whole(lambda: self._decode(self._text, self._at))

    def _whole(self, decode: Any) -> Any:
        """What stands at this place, of which the window may hold a part only."""
        self._next_character()
        while True:
            try:
                value, end = decode()
                # A number may go on behind the window, also where it seems to end: 1 of 1.5.
                if self._ended or self._text[end : end + 1] in _AFTER:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                # Faults deep inside the window are no matter of its end; the last characters may be half an escape.
                if self._ended or error.pos < len(self._text) - 16 and "Unterminated" not in error.msg:
                    raise self._fault(error.msg) from None
            self._more()

    def _next_character(self) -> str:
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _WHITESPACE:
                at += 1
            self._at = at
            if at < len(text):
                return text[at]
            if self._ended:
                raise self._fault("the file ends here")
            self._more()

    def _more(self) -> None:
        chunk = self._file.read(max(_CHUNK, len(self._text) - self._at))  # doubled, for one very long element
        self._ended = not chunk
        self._text, self._at = self._text[self._at :] + chunk, 0

    def _fault(self, reason: str) -> DataError:
        near = self._text[self._at : self._at + 40]
        return DataError(
            f"{self._path}: not whole JSON at element {self._count}, near {near!r}: {reason}; fetch the file again"
        )
