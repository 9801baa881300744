"""Several sets, each evaluated by itself, and their means."""

from types import SimpleNamespace

import pytest
import torch

from processor.evaluator import Evaluation, Evaluator, Features
from processor.joint_evaluator import JointEvaluator, make_evaluator
from processor.metrics.ranks import rank_matches, summarise


def test_means_over_sets_and_the_rows_of_each(monkeypatch: pytest.MonkeyPatch):
    splits = {name: SimpleNamespace(name=name) for name in ("A", "B")}

    def evaluate(self: Evaluator, **options: bool) -> Evaluation:
        generator = torch.Generator().manual_seed(ord(self.split.name))
        texts, images = torch.randn(12, 4, generator=generator), torch.randn(12, 4, generator=generator)
        features = Features(texts, images, torch.arange(12) // 3, torch.arange(12) // 3)
        queries = {"t2i": rank_matches(*features)}
        return Evaluation({"t2i": {**summarise(queries["t2i"]), "unmatched": 2}}, features, queries)

    alone = {name: evaluate(Evaluator(None, split)).rows["t2i"] for name, split in splits.items()}
    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    assert type(make_evaluator(None, {"A": splits["A"]})) is Evaluator
    joint = make_evaluator(None, splits)
    assert isinstance(joint, JointEvaluator)
    found = joint.evaluate()
    assert list(found.rows) == ["t2i", "t2i A", "t2i B"] and list(found.queries) == ["t2i A", "t2i B"]
    assert alone["A"] != alone["B"]
    for name in alone["A"].keys() - {"unmatched"}:
        assert found.rows["t2i"][name] == pytest.approx((alone["A"][name] + alone["B"][name]) / 2)
    assert "unmatched" not in found.rows["t2i"] and found.rows["t2i B"] == alone["B"]
