"""The comparison of runs of every age and state."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from analysis import compare
from processor.run_dir.history import Entry, append_entry
from utils.command import run_command

METRICS = {"R1": 50.0, "R5": 70.0, "R10": 80.0, "mAP": 45.0, "mINP": 30.0}
IRRA_LOG = """\
2023-03-01 10:00:00,000 IRRA.train INFO: Validation Results - Epoch: 1
2023-03-01 10:00:00,000 IRRA.eval INFO:
+------+--------+--------+--------+--------+--------+
| task |   R1   |   R5   |  R10   |  mAP   |  mINP  |
+------+--------+--------+--------+--------+--------+
| t2i  | 38.857 | 61.988 | 72.011 | 35.650 | 21.833 |
| i2t  | 52.342 | 80.000 | 88.224 | 33.017 | 10.001 |
+------+--------+--------+--------+--------+--------+
2023-03-01 10:00:01,000 IRRA.train INFO: Validation Results - Epoch: 60
+------+--------+--------+--------+--------+--------+
| t2i  | 73.376 | 89.929 | 93.713 | 66.127 | 50.239 |
+------+--------+--------+--------+--------+--------+
2023-03-01 10:00:01,000 IRRA.train INFO: best R1: 73.376 at epoch 60
"""


def run_folder(path: Path, **flags: object) -> Path:
    """A run directory with nothing but its flags."""
    path.mkdir(parents=True)
    given = {"loss_names": "itc", "lr": 1e-5, "num_epoch": 3, "name": "mine", "seed": 1, "run_dir": str(path)} | flags
    (path / "configs.yaml").write_text(yaml.safe_dump(given))
    return path


def evaluated(path: Path, *r1: float) -> Path:
    """Give a run one evaluation per epoch."""
    for epoch, value in enumerate(r1, start=1):
        append_entry(path, Entry(epoch, 4, 4, val={**METRICS, "R1": value}))
    return path


def table(paths: list[Path], capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, str]], str]:
    """The rows of the comparison, and what went to stderr."""
    capsys.readouterr()
    compare.main([*map(str, paths), "--csv"])
    printed = capsys.readouterr()
    return list(csv.DictReader(io.StringIO(printed.out))), printed.err


def test_best_and_last_epoch_and_differing_flags_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = evaluated(run_folder(tmp_path / "one"), 10.0, 30.0, 20.0)
    two = evaluated(run_folder(tmp_path / "two", loss_names="id+mlm+sdm", lr=3e-4, img_size=[384, 128]), 1.0, 2.0, 3.0)
    (two / "run.json").write_text(
        json.dumps(
            {
                "best": {"epoch": 3, **METRICS},
                "last": {"epoch": 3, **METRICS},
                "finished": "2026-01-01T00:00:00",
                "seconds": 3725.4,
                "peak_memory_bytes": 2_345_000_000,
            }
        )
    )
    rows, said = table([one, two], capsys)
    assert list(rows[0]) == [
        *("run", "method", "losses", "lr", "epoch"),
        *("R1", "R5", "R10", "mAP", "mINP", "time", "memory"),
    ]
    assert [row["epoch"] for row in rows] == ["2 (best)", "3 (last)", "3 (best, last)"]
    assert [row["R1"] for row in rows] == ["30.00", "20.00", "50.00"]
    assert [row["method"] for row in rows] == ["mine", "mine", "IRRA"]
    assert [row["lr"] for row in rows] == ["1e-05", "1e-05", "0.0003"]
    assert rows[2]["time"] == "1:02:05" and rows[2]["memory"] == "2.35 GB"
    assert "one: no run.json" in said and "two" not in said


def test_published_older_unfinished_and_foreign_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    published = run_folder(tmp_path / "published", num_epoch=60, loss_names="sdm+mlm+id")
    with (published / "configs.yaml").open("a") as file:
        file.write("img_size: !!python/tuple\n- 384\n- 128\n")
    (published / "train_log.txt").write_text(IRRA_LOG)
    begun = run_folder(tmp_path / "begun")
    stopped = evaluated(run_folder(tmp_path / "stopped"), 5.0)
    killed = evaluated(run_folder(tmp_path / "killed"), 5.0)
    (killed / "run.json").write_text(json.dumps({"best": None, "last": None, "finished": None, "seconds": None}))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    rows, said = table([published, begun, stopped, killed, foreign], capsys)
    assert [row["epoch"] for row in rows] == ["60 (best, last)", "", "1 (best, last)", "1 (best, last)"]
    assert [rows[0][name] for name in METRICS] == ["73.38", "89.93", "93.71", "66.13", "50.24"]
    assert rows[0]["method"] == "IRRA" and rows[0]["time"] == ""
    assert f"skipped, no configs.yaml or run.json in it: {foreign}" in said
    assert "begun: no run.json, so time and memory are unknown; not evaluated yet" in said
    assert "stopped: no run.json, so time and memory are unknown; stopped after epoch 1 of 3" in said
    assert "killed: not finished" in said


def test_many_differing_flags_get_a_table_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = ("alpha", "beta", "gamma", "margin", "power", "tau")
    paths = [run_folder(tmp_path / f"run{number}", **dict.fromkeys(names, number)) for number in range(2)]
    paths.append(run_folder(tmp_path / "older"))
    compare.main([*map(str, paths), "--markdown"])
    first, second = capsys.readouterr().out.split("\n| flag")
    assert "alpha" not in first and "run1" in first
    assert [line.split("|")[1].strip() for line in second.splitlines()[2:]] == list(names)
    compare.main([*map(str, paths[::2]), "--csv"])
    assert "alpha" not in capsys.readouterr().out


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path):
    runs = [compare.read_run(evaluated(run_folder(tmp_path / seed / "run"), 1.0)) for seed in ("a", "b")]
    assert [row[0] for row in compare.comparison(runs, ()).rows] == ["a/run", "b/run"]


def test_a_folder_of_runs_stands_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed in (2, 1):
        evaluated(run_folder(tmp_path / "seeds" / f"seed_{seed}", seed=seed), float(seed))
    (tmp_path / "seeds" / "notes").mkdir()
    (tmp_path / "seeds" / "configs.yaml").write_text("seeds: [1, 2]\n")
    rows, said = table([tmp_path / "seeds"], capsys)
    assert [(row["run"], row["seed"], row["R1"]) for row in rows] == [("seed_1", "1", "1.00"), ("seed_2", "2", "2.00")]
    assert "skipped" not in said


def test_a_real_run_and_its_log_say_the_same(trained: Path, tmp_path: Path):
    run = compare.read_run(trained)
    assert run.best["R1"] >= run.last["R1"] and run.last["epoch"] == 2
    for name in ("configs.yaml", "train_log.txt"):
        (tmp_path / name).write_text((trained / name).read_text())
    older = compare.read_run(tmp_path)
    assert older.last == pytest.approx(run.last, abs=5e-4) and older.best == pytest.approx(run.best, abs=5e-4)


@pytest.mark.parametrize(
    ("names", "message"), [(["nowhere"], "no such directory"), (["empty"], "none of these is a run directory")]
)
def test_nothing_to_compare(tmp_path: Path, names: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        run_command(compare.main, [str(tmp_path / name) for name in names])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_damaged_run_json_is_named(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    (folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json: damaged"):
        compare.read_run(folder)
