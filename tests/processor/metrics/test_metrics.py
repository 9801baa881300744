"""Every metric of METRICS on rankings that are written out, and a metric of one's own."""

import pytest
import torch
from torch import Tensor

from processor.metrics import EXTRA_METRICS, METRICS, chosen_metrics
from processor.metrics.ranks import retrieval_metrics
from processor.metrics.recall import recall_at
from processor.metrics.table import metrics_table

RANKS = torch.tensor([[1.0, 4.0, 10.0], [6.0, torch.inf, torch.inf], [2.0, 3.0, torch.inf]]).double()
COUNTS = torch.tensor([3.0, 1.0, 2.0]).double()
EXPECTED = {
    "R1": [1.0, 0.0, 0.0],
    "R5": [1.0, 0.0, 1.0],
    "R10": [1.0, 1.0, 1.0],
    "mAP": [(1 + 2 / 4 + 3 / 10) / 3, 1 / 6, (1 / 2 + 2 / 3) / 2],
    "mINP": [3 / 10, 1 / 6, 2 / 3],
}


def test_the_columns_of_the_table_are_the_metrics_in_their_order():
    assert list(METRICS) == list(EXPECTED) == ["R1", "R5", "R10", "mAP", "mINP"]
    table = metrics_table({"t2i": dict(zip(METRICS, (1, 2, 3, 4, 5), strict=True))})
    assert table.field_names == ["task", *METRICS]
    assert table.rows == [["t2i", "1.000", "2.000", "3.000", "4.000", "5.000"]]


def test_a_row_without_a_metric_has_an_empty_cell():
    rows = {"t2i": {"R1": 1.0, "mSD": 2.0, "unmatched": 3}, "reranked": {"R1": 4.0}}
    table = metrics_table(rows)
    assert table.field_names == ["task", "R1", "mSD"]
    assert table.rows == [["t2i", "1.000", "2.000"], ["reranked", "4.000", ""]]


def test_other_columns_on_request():
    assert chosen_metrics((1, 5, 10), ()) == METRICS
    chosen = chosen_metrics((20, 1), ("mSD", "rSum"))
    assert list(chosen) == ["R20", "R1", "mAP", "mINP", "mSD", "rSum"]
    assert chosen["R20"](RANKS + 18, COUNTS).tolist() == [1.0, 0.0, 1.0]


def test_rsum_adds_up_the_recalls():
    assert EXTRA_METRICS["rSum"](RANKS, COUNTS).tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("name", METRICS)
def test_metrics_follow_their_definition(name: str):
    assert METRICS[name](RANKS, COUNTS).tolist() == pytest.approx(EXPECTED[name])


def test_a_metric_of_ones_own_sees_every_rank():
    def mean_rank(rank_RM: Tensor, count_R: Tensor) -> Tensor:
        return rank_RM.masked_fill(rank_RM.isinf(), 0).sum(dim=1) / count_R

    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    gallery = torch.tensor([[1.0, 0.1], [1.0, 0.5], [0.5, 1.0], [0.1, 1.0]])
    own = {"R3": recall_at(3), "mean rank": mean_rank}
    found = retrieval_metrics(queries, gallery, [7, 8], [8, 7, 7, 7], own)
    assert found == pytest.approx({"R3": 50.0, "mean rank": 100 * ((2 + 3 + 4) / 3 + 4) / 2})
    found = retrieval_metrics(queries, gallery, [7, 9], [8, 7, 7, 7], own, allow_unmatched=True)
    assert found == pytest.approx({"R3": 100.0, "mean rank": 300.0, "unmatched": 1})
