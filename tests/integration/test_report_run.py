"""test.py --report and --cross_domain on small runs."""

import csv
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

import test as test_script
import train as train_script
from tests.helpers.runs import ROOT, SMALL, python, table
from utils.options import load_train_configs


def run_for(losses: str, data_root: Path, run_dir: Path, *flags: str) -> Path:
    """A run of two short epochs."""
    train_script.main([*SMALL, "--root_dir", str(data_root), "--run_dir", str(run_dir), "--loss_names", losses, *flags])
    return run_dir / "configs.yaml"


def test_report_of_a_run(trained: Path):
    done = python("test.py", "--config_file", trained / "configs.yaml", "--report", "--report_count", 3, "--i2t")
    assert done.returncode == 0, done.stderr
    folder = trained / "report_CUHK-PEDES_test"
    assert str(folder / "report.html") in done.stdout and "\033" not in done.stdout + done.stderr
    text = (folder / "report.html").read_text(encoding="utf-8")
    for title in ("Sample", "Worst failures", "Most confident errors"):
        assert f">{title}</h2>" in text
    assert f"{table(done.stdout)[0]:.3f}" in text and f"{table(done.stdout, 'i2t')[0]:.3f}" in text
    ranks = [int(rank) for rank in re.findall(r"Query \d+ · rank (\d+)", text)]
    assert 6 < len(ranks) <= 9 and all(rank > 1 for rank in ranks[3:])
    worst = ranks[3:6]
    assert worst == sorted(worst, reverse=True)
    assert len(re.findall(r'<figure class="tile right">', text)) >= len(ranks)
    for name in ("cmc", "scores", "caption_length", "sample", "worst_failures", "most_confident_errors"):
        with Image.open(folder / f"{name}.png") as image:
            assert image.width > 300
    assert "Experts" not in text and "Prompts" not in text and "Associations" not in text


def test_chosen_queries_and_another_folder(trained: Path, tmp_path: Path):
    config = ["--config_file", str(trained / "configs.yaml"), "--report"]
    test_script.main([*config, "--report_dir", str(tmp_path / "page"), "--report_queries", "3", "0", "7"])
    text = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"Query (\d+)", text) == ["3", "0", "7"]
    assert (tmp_path / "page" / "chosen_queries.png").exists()


def test_report_shows_what_is_particular_to_a_system(data_root: Path, tmp_path: Path):
    systems = {
        "sdm+itc+aux": (
            ["--cnum", "2", "--moe_layers", "1", "--moe_heads", "2", "--num_epoch", "1"],
            "Experts",
            "expert 3",
        ),
        "TAL+memory+instance_memory": (
            ["--prompt_depth", "2", "--num_context", "3", "--num_epoch", "1"],
            "Prompts",
            "nearest words",
        ),
        "itc+memory_soft": (["--id_threshod", "0.0"], "Associations", "Training pair"),
    }
    for number, (losses, (flags, title, content)) in enumerate(systems.items()):
        config = run_for(losses, data_root, tmp_path / str(number), *flags)
        test_script.main(["--config_file", str(config), "--report", "--report_queries", "0"])
        page = (tmp_path / str(number) / "report_CUHK-PEDES_test" / "report.html").read_text(encoding="utf-8")
        assert f">{title}</h2>" in page and content in page, losses
    test_script.main(["--config_file", str(config), "--report", "--report_queries", "0", "--dataset_name", "RSTPReid"])
    other = (tmp_path / str(number) / "report_RSTPReid_test" / "report.html").read_text(encoding="utf-8")
    assert "Associations" in other


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--report", "--report_queries", "99999"], "--report_queries 99999: test has queries 0 to"),
        (["--report_queries", "1"], "--report_queries: has no effect without --report"),
        (["--report", "--report_count", "0"], "--report_count 0: expected at least 1"),
        (["--cross_domain", "logs"], "--config_file: cannot be combined with --cross_domain"),
        (["--cross_domain", "logs", "--rerank", "5"], "--rerank: cannot be combined with --cross_domain"),
        (["--targets", "RSTPReid"], "--targets: has no effect without --cross_domain"),
        (["--cross_domain", "logs", "--csv", "no/such/x.csv"], "--csv no/such/x.csv: there is no folder no/such"),
    ],
)
def test_flags_that_make_no_sense(trained: Path, fails: Callable[..., str], flags: list[str], message: str):
    assert message in fails("test", "--config_file", trained / "configs.yaml", *flags)


@pytest.fixture(scope="module")
def other_domain(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on another data set, with other losses and an adapter."""
    run_dir = tmp_path_factory.mktemp("logs") / "other"
    flags = ["--dataset_name", "RSTPReid", "--lora_r", "2", "--num_epoch", "1"]
    return run_for("itc", data_root, run_dir, *flags).parent


def test_cross_domain_has_the_numbers_of_single_tests(
    trained: Path, other_domain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    expected = {}
    for run in (trained, other_domain):
        for name in ("CUHK-PEDES", "RSTPReid"):
            test_script.main(["--config_file", str(run / "configs.yaml"), "--dataset_name", name])
            expected[str(run), name] = table(capsys.readouterr().out)
    test_script.main(["--cross_domain", str(trained), str(other_domain), "--csv", str(tmp_path / "cross.csv")])
    printed = capsys.readouterr()
    assert "keys without a meaning" not in printed.err
    with (tmp_path / "cross.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {(row["run"], row["data set"]): [float(row[m]) for m in ("R1", "R5", "R10", "mAP", "mINP")] for row in rows}
    assert found == expected
    assert [row["own"] for row in rows] == ["yes", "no", "no", "yes"]
    lines = [line for line in printed.out.splitlines() if line.startswith(f"| {trained}")]
    r1, _, _, mean_ap, _ = expected[str(trained), "RSTPReid"]
    assert f"{r1:.2f} / {mean_ap:.2f}" in lines[0]


def test_starting_points_are_rows_beside_runs(
    trained: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
):
    checkpoint = shutil.copy(trained / "best.pth", tmp_path / "pretrained.pth")
    size = ["--img_size", "64", "32", "--root_dir", str(data_root), "--device", "cpu"]
    rows = [str(trained), "tiny", str(checkpoint)]
    test_script.main(["--cross_domain", *rows, "--csv", str(tmp_path / "x.csv"), *size])
    printed = capsys.readouterr().out
    with (tmp_path / "x.csv").open(encoding="utf-8") as file:
        found = {row["run"]: row for row in csv.DictReader(file)}
    assert list(found) == rows and [row["own"] for row in found.values()] == ["yes", "no", "no"]
    assert found[str(checkpoint)]["mAP"] == found[str(trained)]["mAP"] != found["tiny"]["mAP"]
    assert "| CLIP as it is " in printed and "IRRA from CLIP" not in printed, "no column that it was not trained on"
    test_script.main(["--cross_domain", str(trained), "--targets", "RSTPReid", "--ks", "2", "--metrics", "mSD", *size])
    printed = capsys.readouterr().out
    assert "| IRRA from CLIP, on CUHK-PEDES | 52.55 / 39.97" in printed and "[1] " in printed
    assert "starting points alone; say on which data sets" in fails("test", "--cross_domain", "tiny", *size)
    message = fails("test", "--cross_domain", "ViT-B-16", *size)
    assert "--cross_domain ViT-B-16: neither a run directory nor a file nor one of ViT-B/16" in message
    archive = ROOT / "tests" / "golden" / "irra" / "clip.pt"  # which does not say whose it is
    assert "the weights fit more than one model" in fails("test", "--cross_domain", trained, archive, *size)
    assert "testing" not in capsys.readouterr().out, "found before any test"


def test_cross_domain_knows_one_data_set_by_all_its_spellings(
    trained: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "link").symlink_to(data_root)
    spellings = [
        data_root,
        tmp_path / "link",
        data_root / "RSTPReid" / "..",
        os.path.relpath(data_root),
        f"{data_root}/",
    ]
    runs = []
    for number, root in enumerate(spellings):
        flags = yaml.safe_load((trained / "configs.yaml").read_text())
        runs.append(tmp_path / f"run{number}")
        runs[-1].mkdir()
        (runs[-1] / "configs.yaml").write_text(yaml.safe_dump({**flags, "root_dir": str(root)}))
        (runs[-1] / "best.pth").symlink_to(trained / "best.pth")
    test_script.main(["--cross_domain", *map(str, runs), "--csv", str(tmp_path / "cross.csv")])
    with (tmp_path / "cross.csv").open(encoding="utf-8") as file:
        rows = [(row["run"], row["data set"], row["own"]) for row in csv.DictReader(file)]
    assert rows == [(str(run), "CUHK-PEDES", "yes") for run in runs]
    capsys.readouterr()
    test_script.main(["--cross_domain", str(trained), "--targets", *(f"RSTPReid={root}" for root in spellings)])
    assert capsys.readouterr().out.count("testing ") == 1


def test_log_lines_of_tables_name_the_precision(trained: Path, capsys: pytest.CaptureFixture[str]):
    for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16")):
        capsys.readouterr()
        test_script.main(["--cross_domain", str(trained), "--precision", name, "--device", "cpu"])
        assert f"testing {trained} on CUHK-PEDES test, cpu, {dtype}\n" in capsys.readouterr().out
        test_script.main(["--config_file", str(trained / "configs.yaml"), "--precision", name])
        assert f"testing {trained / 'best.pth'} on CUHK-PEDES test, cpu, {dtype}\n" in capsys.readouterr().out


def test_cross_domain_on_named_data_sets(
    trained: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
):
    shutil.copytree(data_root / "RSTPReid", tmp_path / "RSTPReid")
    root = load_train_configs(trained / "configs.yaml").root_dir
    targets = [f"RSTPReid={tmp_path}", f"RSTPReid={root}", f"ICFG-PEDES={root}"]
    test_script.main(["--cross_domain", str(trained), "--targets", *targets])
    printed = capsys.readouterr().out
    assert f"RSTPReid {tmp_path}" in printed and f"RSTPReid {root}" in printed and " ICFG-PEDES " in printed
    assert "--targets Market: expected NAME" in fails("test", "--cross_domain", trained, "--targets", "Market")
    assert "nowhere" in fails("test", "--cross_domain", tmp_path / "nowhere")
    shutil.copy(trained / "configs.yaml", tmp_path)
    assert "there is no best.pth" in fails("test", "--cross_domain", trained, tmp_path)
