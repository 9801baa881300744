"""The training loop, the evaluator with its metrics, and the run directory that both write to."""
