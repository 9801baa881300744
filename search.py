"""Search photos: ``python search.py --config_file RUN/configs.yaml --gallery PHOTOS --query "a man in black"``."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # the imports below take seconds, and Ctrl-C among them would end in a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from datasets.augmentation import eval_view
from datasets.batches.options import DataOptions, data_groups
from datasets.images.decode import decode, load_resized
from gallery.index import GalleryIndex, index_folder
from gallery.page import PageOptions, create_app, require_packages, serve
from gallery.photos import find_photos, photo_batches
from gallery.queries import QueryOptions, answer
from gallery.ranking import RankingOptions, build_ranking
from gallery.results import export, write_answers
from gallery.searcher import Features, Searcher
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import ParsingOptions
from model.backbones.clip_tokenizer import shared_tokenizer
from model.backbones.spec import BackboneOptions
from model.build import model_groups
from model.checkpoints.finetune import FinetuneOptions
from model.checkpoints.restore import Restored, restore
from processor.run_dir.layout import RunOptions
from processor.run_dir.published_flags import PUBLISHED_WITHOUT_EFFECT
from processor.trainer import LoopOptions
from solver.optimizer import SolverOptions
from solver.schedule import ScheduleOptions
from utils.command import parse, run_command
from utils.device import DeviceOptions, Precision, pick_device, pick_precision
from utils.files import file_sha256
from utils.log import NEXT, setup_logger
from utils.options import Options, opt


@dataclass(frozen=True)
class SearchOptions:
    """Flags of search.py alone."""

    gallery: Path | None = opt(None, "folder of photos, with all folders in it")
    checkpoint: Path | None = opt(None, "weights to search with; default: best.pth beside --config_file")
    output: Path | None = opt(None, "folder for contact sheets and results.jsonl; default: RUN/search/TIME")
    index_dir: Path | None = opt(None, "folder that holds indexes; default: RUN/search/index")
    update: bool = opt(
        True, "look first for photos that are new, changed or gone; without, the index is searched as it is"
    )
    index_batch: int = opt(64, "photos encoded at once")
    export: Path | None = opt(None, "also write all vectors to this folder: vectors.npy, photos.jsonl, about.json")

    def __post_init__(self) -> None:
        if self.index_batch < 1:
            raise ValueError(f"--index_batch {self.index_batch}: expected at least 1")


GROUPS = {
    "search": [QueryOptions, SearchOptions, RankingOptions, PageOptions, DeviceOptions],
    "as in training (from --config_file)": [DataOptions, BackboneOptions, LoRAOptions, ParsingOptions],
}
"""every flag of search.py, by section of --help"""
UNREAD = tuple(
    group for groups in (data_groups(), model_groups()) for members in groups.values() for group in members
) + (RunOptions, FinetuneOptions, SolverOptions, ScheduleOptions, LoopOptions)
"""flags that a run's configs.yaml may hold and that mean nothing here"""

log = logging.getLogger("descry")


def read_flags(argv: Sequence[str] | None) -> Options:
    """Flags of the command line over those of the run's ``configs.yaml``, whoever wrote it.

    Raises:
        ValueError: the run or the gallery is not named.
    """
    options = parse(GROUPS, argv, __doc__, PUBLISHED_WITHOUT_EFFECT, unread=UNREAD, lenient=True)
    if options.config_file is None:
        raise ValueError("--config_file: say which run to search with, as in --config_file logs/.../configs.yaml")
    if options.get(SearchOptions).gallery is None:
        raise ValueError("--gallery: say which folder of photos to search, as in --gallery PHOTOS")
    return options


def made_by(checkpoint: Path, restored: Restored, options: Options, precision: Precision) -> dict[str, Any]:
    """Everything that a feature depends on beside the photo."""
    backbone = options.get(BackboneOptions)
    return {
        "checkpoint_sha256": file_sha256(checkpoint),
        "img_size": list(backbone.img_size),
        "stride_size": backbone.stride_size,
        "lora_alpha": options.get(LoRAOptions).lora_alpha,
        "parsing": asdict(restored.parsing),
        "precision": str(precision.dtype).removeprefix("torch."),
    }


def update(index: GalleryIndex, options: Options, features: Features) -> None:
    """Bring the index up to date, and say what the gallery holds."""
    search = options.get(SearchOptions)
    found = find_photos(search.gallery)
    counted = f"{len(found.stamps):,} photos, {found.others:,} other files"
    log.info("%s: %s", search.gallery, counted)
    if found.links:
        log.warning("%s: %d symbolic links are not followed; put the files there", search.gallery, found.links)
    todo, outdated = index.changes(found.stamps)
    log.info("index %s: %d photos to encode, %d changed or gone", index.folder, len(todo), len(outdated))
    size, workers = options.get(BackboneOptions).img_size, options.get(DataOptions).workers
    batches = partial(photo_batches, folder=search.gallery, size=size, batch_size=search.index_batch, workers=workers)
    faults = index.update(found.stamps, lambda names: features.photos(batches(names)))
    if faults:
        log.warning("%d photos cannot be read:\n%s", len(faults), "\n".join(faults.values()))


def main(argv: Sequence[str] | None = None) -> None:
    """Search from flags; see README."""
    options = read_flags(argv)
    search, query, page = (options.get(group) for group in (SearchOptions, QueryOptions, PageOptions))
    run_dir, texts = options.config_file.parent, query.texts()
    if page.serve:
        require_packages()
    setup_logger()
    device_flags = options.get(DeviceOptions)
    precision = pick_precision(device_flags, device := pick_device(device_flags))
    checkpoint = search.checkpoint or run_dir / "best.pth"
    restored = restore(checkpoint, options.get)
    model = restored.model.to(device).eval()
    log.info("searching with %s, %s", checkpoint, device)
    if model.attends_over_batch:
        log.warning(
            "--php_attention batch: encoded one by one, so that no feature depends on others, unlike in test.py"
        )
    size = options.get(BackboneOptions).img_size
    length = restored.text_length(options.get(DataOptions).text_length)
    features = Features(model, precision, shared_tokenizer(), length, eval_view, partial(load_resized, size=size))
    about = made_by(checkpoint, restored, options, precision)
    index_dir = search.index_dir or run_dir / "search" / "index"
    index = GalleryIndex(index_folder(index_dir, search.gallery, about), about, model.clip.sizes.embed_dim)
    if search.update:
        update(index, options, features)
    photos = index.read()
    if not photos.names:
        raise ValueError(f"--gallery {search.gallery}: no photo to search; see README, 'Search'")
    if search.export is not None:
        export(search.export, photos, {**about, "gallery": str(search.gallery.resolve())})
        log.info("%s vectors of length 1: %s", f"{len(photos.names):,}", search.export)
    ranking = build_ranking(photos, index.folder, options.get(RankingOptions))
    searcher = Searcher(search.gallery, photos, ranking, features)
    if answers := answer(searcher, texts, query.query_image, query.k):
        folder = search.output or run_dir / "search" / datetime.now().strftime("%Y%m%d_%H%M%S")
        sheets = write_answers(folder, searcher.gallery, answers, len(searcher), decode)
        log.info("contact sheets: %s", ", ".join(map(str, sheets)))
    if page.serve:
        serve(create_app(searcher, decode, query.k), page.port)
    else:
        log.info(
            "look around in a browser: python search.py --config_file %s --gallery %s --serve",
            options.config_file,
            search.gallery,
            extra=NEXT,
        )


if __name__ == "__main__":
    run_command(main)
