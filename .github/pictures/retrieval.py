"""Draws retrieval.jpg, the README's picture: queries of the demo's test split with their first six images.

bash run.sh python .github/pictures/retrieval.py logs/Mannequins/TIME_demo
"""

import sys
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parents[2]))

import datasets.build as data
import model.build as models
import test as test_script
from model.weights import BackboneOptions
from processor.evaluate import encode_split
from utils.checkpoint import read_torch_file
from utils.distributed import Precision
from utils.metrics import rank_gallery

QUERIES = (10, 153, 302, 451, 640)
TILE, GAP, TEXT = (84, 200), 10, 330
RIGHT, WRONG, INK = (40, 150, 70), (205, 60, 50), (40, 40, 45)


def main(run_dir: Path) -> None:
    """Encode the run's test split and draw the chosen queries."""
    options = test_script.read_flags(["--config_file", str(run_dir / "configs.yaml")])
    flags, backbone = options.get(data.DataOptions), options.get(BackboneOptions)
    dataset = data.read_dataset(flags, options.get(data.mannequins.MannequinOptions))
    _, images = data.checked_images(dataset, backbone.img_size, flags, options.get(data.ImageOptions), ("test",))
    model, _ = models.restore_encoder(read_torch_file(run_dir / "best.pth")["model"], backbone, "best.pth")
    split = data.eval_data("test", dataset.test, images, flags, False, False)
    features = encode_split(model, split, Precision(torch.device("cpu"), torch.float32))
    _, ranked = rank_gallery(features.text_QD[list(QUERIES)], features.image_GD, 6)
    captions = [(caption, record.pid) for record in dataset.test for caption in record.captions]

    height = TILE[1] + 2 * GAP
    sheet = Image.new("RGB", (TEXT + 6 * (TILE[0] + GAP) + 2 * GAP, len(QUERIES) * height + GAP), (250, 250, 248))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for row, (query, places) in enumerate(zip(QUERIES, ranked.tolist(), strict=True)):
        caption, pid = captions[query]
        top = GAP + row * height
        draw.text((2 * GAP, top + 30), textwrap.fill(caption, 40), fill=INK, font=font, spacing=6)
        for column, place in enumerate(places):
            left = TEXT + column * (TILE[0] + GAP)
            record = dataset.test[place]
            frame = RIGHT if record.pid == pid else WRONG
            draw.rectangle((left - 4, top - 4, left + TILE[0] + 3, top + TILE[1] + 3), fill=frame)
            sheet.paste(Image.open(record.path).resize(TILE, Image.Resampling.LANCZOS), (left, top))
    sheet.save(Path(__file__).with_name("retrieval.jpg"), quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
