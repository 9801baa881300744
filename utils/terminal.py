"""Colours, where there is a terminal that shows them."""

import os
from typing import TextIO

RED, YELLOW, BOLD = "31", "33", "1"
"""ANSI codes"""
NEXT = {"colour": BOLD}
"""``extra`` of a log line that says what to do next"""


def paint(text: str, code: str, stream: TextIO) -> str:
    """The text in a colour if the stream is a terminal and the user has not set NO_COLOR (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\033[{code}m{text}\033[0m"
