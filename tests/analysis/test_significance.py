"""Two runs on the same queries: the numbers of single tests, and runs that cannot be compared."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import test as test_script
from analysis import significance
from analysis.significance import comparison
from processor.metrics.confidence import Difference
from tests.helpers.runs import table


@pytest.fixture(scope="module")
def worse(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained run with noise on its weights."""
    folder = tmp_path_factory.mktemp("logs") / "worse"
    shutil.copytree(trained, folder)
    content = torch.load(folder / "best.pth", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for value in content["model"].values():
        value += 0.5 * value.std() * torch.randn(value.shape, generator=generator) if value.numel() > 1 else 0
    torch.save(content, folder / "best.pth")
    return folder


def test_numbers_are_those_of_single_tests(trained: Path, worse: Path, capsys: pytest.CaptureFixture[str]):
    alone = {}
    for run in (trained, worse):
        test_script.main(["--config_file", str(run / "configs.yaml"), "--i2t", "--intervals", "--ks", "1", "3"])
        printed = capsys.readouterr().out
        alone[run] = {task: table(printed, task) for task in ("t2i", "i2t")}
        low, high = (table(printed, f"t2i, 95 % {end}") for end in ("from", "to"))
        values = zip(low, alone[run]["t2i"], high, strict=True)
        assert all(bottom <= value <= top for bottom, value, top in values) and low != high
    significance.main([str(trained), str(worse), "--i2t", "--ks", "1", "3"])
    printed = capsys.readouterr().out
    assert f"t2i on CUHK-PEDES test: A is {trained}, B is {worse}" in printed
    assert "20 queries of 5 identities, 10,000 resamplings" in printed
    rows = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines() if line.startswith("| ")]
    names = ("R1", "R3", "mAP", "mINP")
    rows = [row[1:4] for row in rows if row[1] in names]
    pairs = [(alone[trained][task], alone[worse][task]) for task in ("t2i", "i2t")]
    assert rows == [
        [name, f"{a:.2f}", f"{b:.2f}"] for one, other in pairs for name, a, b in zip(names, one, other, strict=True)
    ]


def test_verdicts():
    metrics = {"R1": 70.0, "mAP": 50.0, "mINP": 40.0}
    differences = {
        "R1": Difference(0.3, -0.5, 1.1, 0.4),
        "mAP": Difference(1.0, 0.4, 1.6, 0.0013),
        "mINP": Difference(-2.0, -3.0, -1.0, 0.049),
    }
    rows = comparison(metrics, metrics, differences).rows
    assert [row[-1] for row in rows] == ["may be chance", "A is better", "B is better"]
    assert rows[0] == ("R1", "70.00", "70.00", "+0.30", "-0.50 to +1.10", "0.4000", "may be chance")


def test_runs_that_cannot_be_compared(trained: Path, worse: Path, tmp_path: Path, fails: Callable[..., str]):
    command = "analysis.significance"
    assert "--runs: expected two run directories, as in RUN_A RUN_B, found 1" in fails(command, trained)
    assert "as in RUN_A RUN_B, found 0" in fails(command, "--i2t")
    assert "the same run twice" in fails(command, trained, trained / ".")
    assert f"--runs {tmp_path}: there is no best.pth in it" in fails(command, trained, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(worse, other)
    flags = yaml.safe_load((worse / "configs.yaml").read_text())
    (other / "configs.yaml").write_text(yaml.safe_dump({**flags, "dataset_name": "RSTPReid"}))
    message = fails(command, trained, other)
    assert "trained on CUHK-PEDES and RSTPReid, so" in message and "--dataset_name" in message
    assert "--ks 0: expected at least 1" in fails(command, trained, worse, "--ks", "0")
    assert "--metrics 'auc': choose one of rSum, mSD, mSD_published" in fails(
        command, trained, worse, "--metrics", "auc"
    )
