"""One model, several data sets: each evaluated by itself."""

from collections.abc import Mapping

import numpy as np

from datasets.batches.evaluation_split import EvaluationSplit
from model.retriever import Retriever
from processor.evaluator import Evaluation, Evaluator
from processor.metrics.ranks import QueryMetrics


class JointEvaluator(Evaluator):
    """Evaluates every set; the row ``t2i`` holds the means over the sets, by which the best epoch is chosen.

    Pictures are of the first set.
    """

    def __init__(self, model: Retriever, splits: Mapping[str, EvaluationSplit]) -> None:
        """``splits`` by the name of their data set."""
        super().__init__(model, next(iter(splits.values())))
        self.evaluators = {name: Evaluator(model, split) for name, split in splits.items()}

    def evaluate(self, **options: bool) -> Evaluation:
        """Rows of means over the sets, then those of each set; features of the first. Arguments: :class:`Evaluator`."""
        by_set = {name: each.evaluate(**options) for name, each in self.evaluators.items()}
        rows: dict[str, dict[str, float]] = {}
        queries: dict[str, QueryMetrics] = {}
        first = next(iter(by_set.values()))
        for task, row in first.rows.items():
            rows[task] = {
                metric: float(np.mean([each.rows[task][metric] for each in by_set.values()]))
                for metric in row
                if metric != "unmatched"
            }
            rows |= {f"{task} {name}": each.rows[task] for name, each in by_set.items()}
            queries |= {f"{task} {name}": each.queries[task] for name, each in by_set.items()}
        return Evaluation(rows, first.features, queries)


def make_evaluator(model: Retriever, splits: Mapping[str, EvaluationSplit]) -> Evaluator:
    """The evaluator of one data set, or of several."""
    return Evaluator(model, next(iter(splits.values()))) if len(splits) == 1 else JointEvaluator(model, splits)


def by_set(rows: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """``NAME R1`` and so on of the rows ``t2i NAME``, for curves of each set; empty with a single one."""
    singly = {task.removeprefix("t2i "): row for task, row in rows.items() if task.startswith("t2i ")}
    return {f"{name} {metric}": value for name, row in singly.items() for metric, value in row.items()}
