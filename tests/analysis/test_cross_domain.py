"""Names and equality of the data sets of a cross-domain table."""

from pathlib import Path

import pytest

from analysis.cross_domain import CrossDomainResult, CrossDomainTarget, long_table, matrix
from datasets.mannequins.draw import MannequinOptions


def target(name: str, root: str = "data", **drawing: object) -> CrossDomainTarget:
    drawn = MannequinOptions(**{f"mannequin_{key}": value for key, value in drawing.items()})
    return CrossDomainTarget(name, Path(root), Path(root).resolve(), drawn)


@pytest.mark.parametrize(
    ("targets", "labels"),
    [
        ([target("RSTPReid"), target("ICFG-PEDES", "other")], ["RSTPReid", "ICFG-PEDES"]),
        ([target("RSTPReid"), target("RSTPReid", "other")], ["RSTPReid data", "RSTPReid other"]),
        ([target("Mannequins"), target("Mannequins", seed=3)], ["Mannequins seed 0", "Mannequins seed 3"]),
        (
            [target("Mannequins"), target("Mannequins", "other"), target("Mannequins", seed=3)],
            ["Mannequins seed 0 data", "Mannequins seed 0 other", "Mannequins seed 3 data"],
        ),
    ],
)
def test_labels_tell_data_sets_apart(targets: list[CrossDomainTarget], labels: list[str]):
    assert [each.label(targets) for each in targets] == labels


def test_a_data_set_is_what_it_holds_not_how_its_root_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    spellings = ("data", "./data/", "link", "data/../link", str(tmp_path / "data"))
    assert len({target("RSTPReid", root) for root in spellings}) == 1
    assert (
        len({target("RSTPReid"), target("RSTPReid", "other"), target("Mannequins"), target("Mannequins", seed=3)}) == 4
    )


def test_tables_of_two_runs_on_two_data_sets():
    metrics = {"R1": 10.0, "R5": 20.0, "R10": 30.0, "mAP": 40.0, "mINP": 50.0}
    cells = [("one", "A", True), ("one", "B", False), ("two", "A", False), ("two", "B", True)]
    results = [CrossDomainResult(*cell, {**metrics, "R1": float(number)}) for number, cell in enumerate(cells)]
    table = matrix(results)
    assert table.columns == ("run", "A", "B")
    assert table.rows == (("one", "* 0.00 / 40.00", "1.00 / 40.00"), ("two", "2.00 / 40.00", "* 3.00 / 40.00"))
    assert long_table(results).rows[2] == ("two", "A", "no", "2.000", "20.000", "30.000", "40.000", "50.000")
