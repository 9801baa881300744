"""``python -m model.average``: the mean of checkpoints, and what has none."""

from pathlib import Path

import pytest
import torch

from model.average import main
from utils import UserError

STATE = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[0.5]], dtype=torch.float16), "n": torch.tensor(3)}


def save(path: Path, state: dict) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state, "epoch": 1}, path)
    return str(path)


def test_the_mean_of_runs_and_files(tmp_path, capsys):
    save(tmp_path / "run" / "best.pth", STATE)
    others = [save(tmp_path / f"{n}.pth", {**STATE, "a": STATE["a"] + n, "b": STATE["b"] + n}) for n in (1, 5)]
    main([str(tmp_path / "run"), *others, "--output", str(tmp_path / "mean.pth")])
    mean = torch.load(tmp_path / "mean.pth", weights_only=True)["model"]
    assert mean["a"].tolist() == [3.0, 4.0] and mean["b"].tolist() == [[2.5]] and mean["n"] == 3
    assert mean["b"].dtype == torch.float16
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'mean.pth'}: mean of 3 checkpoints; test it with")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"a": STATE["a"], "n": STATE["n"]}, "only .*one.pth has b"),
        ({**STATE, "c": STATE["a"]}, "only .*two.pth has c"),
        ({**STATE, "a": torch.zeros(3)}, r"a has the shapes \(3,\) and \(2,\)"),
        ({**STATE, "n": torch.tensor(4)}, "two.pth: n is not a number that has a mean"),
    ],
)
def test_checkpoints_of_other_models_are_refused(other, message, tmp_path):
    paths = [save(tmp_path / "one.pth", STATE), save(tmp_path / "two.pth", other)]
    with pytest.raises(UserError, match=message):
        main([*paths, "--output", str(tmp_path / "mean.pth")])
    assert not (tmp_path / "mean.pth").exists()


def test_files_that_are_not_there(tmp_path):
    one = save(tmp_path / "one.pth", STATE)
    with pytest.raises(UserError, match="nothing.pth: no such file"):
        main([one, str(tmp_path / "nothing.pth"), "--output", "x.pth"])
    with pytest.raises(UserError, match="name at least two different checkpoints"):
        main([one, one, "--output", "x.pth"])
    (tmp_path / "text.pth").write_text("text")
    with pytest.raises(UserError, match="text.pth"):
        main([one, str(tmp_path / "text.pth"), "--output", "x.pth"])
    with pytest.raises(UserError, match="cannot be written"):
        main([one, save(tmp_path / "two.pth", STATE), "--output", str(tmp_path / "none" / "x.pth")])
