"""One table in every form, with characters that the forms treat in their own ways."""

import csv
import io

from utils.tables import Table

TABLE = Table(("run_a", "R1"), (("50 % & more", "1.5"), ("a|b,c", "")))


def test_every_form_holds_every_cell():
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [["run_a", "R1"], ["50 % & more", "1.5"], ["a|b,c", ""]]
    latex = TABLE.latex()
    assert r"run\_a & R1 \\" in latex and r"50 \% \& more & 1.5 \\" in latex
    assert r"| a\|b,c" in TABLE.markdown()
    assert all(cell in str(TABLE.pretty()) for cell in ("run_a", "50 % & more", "a|b,c", "1.5"))


def test_commands_of_latex_are_written_out():
    assert r"\textbackslash{}input\{x\}\^" not in Table(("a",), (("\\input{x}^",),)).latex()
    assert r"\textbackslash{}input\{x\}\textasciicircum{}" in Table(("a",), (("\\input{x}^",),)).latex()
