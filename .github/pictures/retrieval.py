"""Draws retrieval.jpg, the README's picture: queries of the demo's test split with their first six images.

bash run.sh python .github/pictures/retrieval.py logs/Mannequins/TIME_demo
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from processor.examples import RawSplit, sheet_rows

import test as test_script
from analysis.evaluated_run import load_split
from datasets.batches.evaluation_split import captions_and_paths
from datasets.contact_sheet import draw_sheet
from datasets.images.decode import decode
from model.checkpoints.restore import restore
from processor.evaluator import encode_split, pids_beside
from processor.metrics.scores import retrieve
from utils.device import DeviceOptions, pick_device, pick_precision

QUERIES = (10, 153, 302, 451, 640)


def main(run_dir: Path) -> None:
    """Encode the run's test split and draw the chosen queries."""
    options = test_script.read_flags(["--config_file", str(run_dir / "configs.yaml")])
    restored = restore(run_dir / "best.pth", options.get)
    device = pick_device(options.get(DeviceOptions))
    dataset, split = load_split(options, restored, "test", device)
    features = encode_split(restored.model.to(device), split, pick_precision(options.get(DeviceOptions), device))
    found = retrieve(features.text_QD, features.image_GD, *pids_beside(features, split), QUERIES, 6)
    raw = RawSplit(*captions_and_paths(dataset.test), decode)
    draw_sheet(sheet_rows(found, raw)).save(Path(__file__).with_name("retrieval.jpg"), quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
