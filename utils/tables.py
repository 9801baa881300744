"""Tables for the terminal, spreadsheets, papers and web pages, from the same rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prettytable import PrettyTable, TableStyle


@dataclass(frozen=True)
class Table:
    """Titles and rows of text; an empty cell is something that is not known."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    """how many of the first columns are words; the others are numbers, which stand to the right"""

    def pretty(self) -> PrettyTable:
        """For the terminal."""
        return self._filled(self.columns, self.rows)

    def csv(self) -> str:
        """Comma-separated values, lines ended by ``\\n``."""
        return self.pretty().get_csv_string(lineterminator="\n")

    def latex(self) -> str:
        """A tabular environment; what LaTeX would take for a command is written out."""
        table = self._filled([_for_latex(title) for title in self.columns], [[*map(_for_latex, r)] for r in self.rows])
        return table.get_latex_string()

    def markdown(self) -> str:
        """For a README or an issue."""
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in (self.columns, *self.rows)]
        table = self._filled(escaped[0], escaped[1:])
        table.set_style(TableStyle.MARKDOWN)
        return table.get_string()

    def _filled(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> PrettyTable:
        table = PrettyTable(list(columns))
        table.add_rows([list(row) for row in rows])
        for number, title in enumerate(columns):
            table.align[title] = "l" if number < self.text_columns else "r"
        return table


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _for_latex(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX.get(found[0], "\\" + found[0]), text)
