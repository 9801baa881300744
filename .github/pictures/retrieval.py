"""Draws retrieval.jpg, the README's picture: queries of the demo's test split with their first six images.

bash run.sh python .github/pictures/retrieval.py logs/Mannequins/TIME_demo
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import test as test_script
from analysis.evaluated_run import load_split
from datasets.contact_sheet import draw_sheet
from model.checkpoints.restore import restore
from processor.evaluator import encode_split, sheet_rows
from processor.metrics.scores import retrieve
from utils.device import TestDeviceOptions, pick_precision

QUERIES = (10, 153, 302, 325, 655)


def main(run_dir: Path) -> None:
    """Encode the run's test split and draw the chosen queries."""
    options = test_script.read_flags(["--config_file", str(run_dir / "configs.yaml")])
    model = restore(run_dir / "best.pth", options.get, pick_precision(options.get(TestDeviceOptions))).model
    _, split = load_split(options, model, "test")
    found = retrieve(*encode_split(model, split), QUERIES, 6)
    draw_sheet(sheet_rows(found, split)).save(Path(__file__).with_name("retrieval.jpg"), quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
