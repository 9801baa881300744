"""Colours appear on terminals only."""

import io

import pytest

from utils.log import RED, paint


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("bad", RED, Terminal()) == "\033[31mbad\033[0m"
    assert paint("bad", RED, io.StringIO()) == "bad"
    monkeypatch.setenv("TERM", "dumb")
    assert paint("bad", RED, Terminal()) == "bad"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("bad", RED, Terminal()) == "bad"
