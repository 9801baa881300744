"""Draws retrieval.jpg, the README's picture: queries of the demo's test split with their first six images.

bash run.sh python .github/pictures/retrieval.py logs/Mannequins/TIME_demo
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import datasets.build as data
import test as test_script
from datasets.images import decode
from datasets.targets import own_target
from model.restore import restore
from processor.evaluate import encode_split, pids_beside
from processor.examples import Shown, sheet_rows
from utils.distributed import DeviceOptions, pick_device, pick_precision
from utils.scores import retrieve
from utils.sheet import draw_sheet

QUERIES = (10, 153, 302, 451, 640)


def main(run_dir: Path) -> None:
    """Encode the run's test split and draw the chosen queries."""
    options = test_script.read_flags(["--config_file", str(run_dir / "configs.yaml")])
    restored = restore(run_dir / "best.pth", options.get)
    target = own_target(options.get(data.DataOptions), options.get(data.mannequins.MannequinOptions))
    dataset, split = test_script.load_split(options, restored, target)
    device = pick_device(options.get(DeviceOptions))
    features = encode_split(restored.model.to(device), split, pick_precision(options.get(DeviceOptions), device))
    found = retrieve(features.text_QD, features.image_GD, *pids_beside(features, split), QUERIES, 6)
    shown = Shown(*data.captions_and_paths(dataset.test), decode)
    draw_sheet(sheet_rows(found, shown)).save(Path(__file__).with_name("retrieval.jpg"), quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
