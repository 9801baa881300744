"""The benchmark for GPUs runs on a CPU too, part by part, so that it is ready when there is a card."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu
from utils import UserError

PARTS = ["machine", "systems", "step tbps_clip 8", "step irra 8", "views", "encoding"]


def test_every_part_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gpu.main(["--device", "cpu", "--out", str(tmp_path / "gpu.json"), "--parts", *PARTS])
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert set(results) == set(PARTS)
    assert results["encoding"] == {"left out": "takes a card"}
    assert not [name for name, result in results.items() if "failed" in result]
    assert results["step irra 8"]["plain"]["pairs/s"] > 0 and "tbps_clip bf16" in results["systems"]
    assert "| tbps_clip |" in capsys.readouterr().out


def test_what_fails_is_named_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "machine", lambda bench: 1 / 0)
    with pytest.raises(SystemExit, match="failed: machine; see"):
        gpu.main(["--device", "cpu", "--out", str(tmp_path / "gpu.json"), "--parts", "machine", "encoding"])
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["machine"]["failed"] == "ZeroDivisionError: division by zero" and "encoding" in results


def test_a_form_of_a_step_that_fails_is_named_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "plain", lambda *_: 1 / 0)
    with pytest.raises(SystemExit, match=r"failed: step irra 8 \(plain\); see"):
        gpu.main(["--device", "cpu", "--out", str(tmp_path / "gpu.json"), "--parts", "step irra 8"])
    forms = json.loads((tmp_path / "gpu.json").read_text())["step irra 8"]
    assert forms["plain"]["failed"] == "ZeroDivisionError: division by zero" and forms["eager"]["pairs/s"] > 0


def test_time_that_is_up(tmp_path: Path):
    gpu.main(["--device", "cpu", "--minutes", "0", "--out", str(tmp_path / "gpu.json"), "--parts", "views"])
    assert json.loads((tmp_path / "gpu.json").read_text()) == {"views": {"left out": "no time was left"}}


def test_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: there is no CUDA device"):
        gpu.main(["--device", "cuda", "--out", str(tmp_path / "gpu.json")])
