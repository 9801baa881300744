"""Everything about a run in one folder."""

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from analysis.full import main
from tests.helpers.runs import table


@pytest.fixture
def run_and_data(trained: Path, data_root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the run, and of two data sets, its own among them."""
    data, run = tmp_path / "data", tmp_path / "a run"
    for name in ("CUHK-PEDES", "RSTPReid"):
        shutil.copytree(data_root / name, data / name)
    shutil.copytree(trained, run)
    flags = yaml.safe_load((run / "configs.yaml").read_text())
    (run / "configs.yaml").write_text(yaml.safe_dump({**flags, "root_dir": str(data)}))
    return run, data


def test_pages_and_an_index_of_all(run_and_data: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    run, data = run_and_data
    (data / "ICFG-PEDES").mkdir()
    main([str(run), "--report_count", "2"])
    printed = capsys.readouterr()
    index = run / "full" / "index.html"
    assert f"open in a browser: {index}" in printed.out
    text = index.read_text(encoding="utf-8")
    links = [unquote(link) for link in re.findall(r'<li><a href="([^"]+)"', text)]
    assert links == ["CUHK-PEDES/report.html", "RSTPReid/report.html", "results.csv"]
    assert all((index.parent / link).is_file() for link in links)
    assert "CUHK-PEDES\u00a0*" in text and "IRRA from CLIP, on CUHK-PEDES" in text and "52.55 / 39.97" in text
    assert "ICFG-PEDES: " in text and "that folder has no ICFG-PEDES.json" in text, "what is left out is said"
    with (run / "full" / "results.csv").open(encoding="utf-8") as file:
        rows = {(row["data set"], row["task"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * 2 * 3 and float(rows["RSTPReid", "t2i"]["R1"]) == table(printed.out)[0]
    assert list(rows["RSTPReid", "i2t"])[2:] == ["R1", "R5", "R10", "mAP", "mINP", "rSum", "mSD"]
    report = (index.parent / "RSTPReid" / "report.html").read_text(encoding="utf-8")
    table_of_words = (index.parent / "RSTPReid" / "swapped_words.csv").read_text(encoding="utf-8")
    assert " to " in table_of_words and "\u2060" not in table_of_words
    assert ">What captions name</h2>" in report and ">Words and patches</h2>" in report and "95 % from" in report


def test_runs_that_cannot_be_looked_at(run_and_data: tuple[Path, Path], tmp_path: Path, fails: Callable[..., str]):
    run, data = run_and_data
    command = "analysis.full"
    assert "--run: say which run" in fails(command)
    assert f"--run {tmp_path}: there is no best.pth in it" in fails(command, tmp_path)
    assert "--report: has no effect here; use test.py" in fails(command, run, "--report", "--report_dir", "x")
    assert "--paraphrases: has no effect here; use test.py" in fails(command, run, "--paraphrases", "x.json")
    shutil.rmtree(data / "CUHK-PEDES")
    assert "--root_dir must point to where CUHK-PEDES is" in fails(command, run)
    assert not (run / "full").exists()
