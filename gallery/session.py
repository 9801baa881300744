"""A search from flags: the model of a run, and the index of a folder of photos."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from datasets.options import DataOptions
from gallery.encoder import FeatureEncoder
from gallery.index import EncodedPhotos, GalleryIndex, index_folder
from gallery.photos import find_photos, photo_batches
from gallery.ranking import RankingOptions, build_ranking
from gallery.results import export
from gallery.searcher import Searcher
from model.adapters.lora import LoRAOptions
from model.backbones.spec import BackboneOptions
from model.checkpoints.restore import restore
from utils import UserError
from utils.device import DeviceOptions, pick_precision
from utils.files import file_sha256
from utils.options import Options, opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class SearchOptions:
    """Flags of search.py alone."""

    gallery: Path | None = opt(None, "folder of photos, with all folders in it")
    checkpoint: Path | None = opt(None, "weights to search with; default: best.pth beside --config_file")
    output: Path | None = opt(None, "folder for contact sheets and results.jsonl; default: RUN/search/TIME")
    index_dir: Path | None = opt(None, "folder that holds indexes; default: RUN/search/index")
    update: bool = opt(True, "first look for photos that are new, changed or gone; without, search the index as it is")
    index_batch: int = opt(64, "photos encoded at once")
    export: Path | None = opt(None, "also write all vectors to this folder: vectors.npy, photos.jsonl, about.json")

    def __post_init__(self) -> None:
        if self.index_batch < 1:
            raise UserError(f"--index_batch {self.index_batch}: expected at least 1")


class SearchSession:
    """A folder of photos, opened with the model of a run."""

    def __init__(self, options: Options) -> None:
        """Load the checkpoint and name the index; the index is not read yet.

        Raises:
            UserError: names the flag or file and what is wrong with it.
        """
        self._flags, self._options = options.get(SearchOptions), options
        run_dir = options.config_file.parent
        self.output = self._flags.output or run_dir / "search" / datetime.now().strftime("%Y%m%d_%H%M%S")
        checkpoint = self._flags.checkpoint or run_dir / "best.pth"
        restored = restore(checkpoint, options.get, pick_precision(options.get(DeviceOptions)))
        model = restored.model
        log.info("searching with %s on %s", checkpoint, model.precision)
        if model.attends_over_batch:
            log.warning(
                "--php_attention batch: photos and queries are encoded one by one here; scores differ from test.py"
            )
        backbone = options.get(BackboneOptions)
        self._encoder = FeatureEncoder(model, model.input_format(options.get(DataOptions).text_length))
        # Everything that a feature depends on besides the photo; an index with other values is never used.
        self._about = {
            "checkpoint_sha256": file_sha256(checkpoint),
            "img_size": list(backbone.img_size),
            "stride_size": backbone.stride_size,
            "lora_alpha": options.get(LoRAOptions).lora_alpha,
            "parsing": asdict(restored.parsing),
            "precision": model.precision.name,
        }
        root = self._flags.index_dir or run_dir / "search" / "index"
        folder = index_folder(root, self._flags.gallery, self._about)
        self._index = GalleryIndex(folder, self._about, model.backbone.spec.embed_dim)

    def update(self) -> None:
        """Bring the index up to date, and say what the folder holds.

        Raises:
            UserError: the folder cannot be read, or the index cannot be written or is damaged.
        """
        gallery = self._flags.gallery
        stamps, links, others = find_photos(gallery)
        log.info("%s: %s photos, %s other files", gallery, f"{len(stamps):,}", f"{others:,}")
        if links:
            log.warning("%s: skipped %d symbolic links; copy the files into the folder instead", gallery, links)
        faults = self._index.update(stamps, self._encode)
        if faults:
            log.warning("%d photos cannot be read:\n%s", len(faults), "\n".join(faults.values()))

    def _encode(self, names: Sequence[str]) -> Iterator[EncodedPhotos]:
        workers = self._options.get(DataOptions).workers
        size = self._encoder.inputs.image_size
        return self._encoder.photos(photo_batches(names, self._flags.gallery, size, self._flags.index_batch, workers))

    def open(self) -> Searcher:
        """A searcher over the index as it is now, which is exported first if the flags say so.

        Raises:
            UserError: the index is empty or damaged, or the export cannot be written.
        """
        gallery, photos = self._flags.gallery, self._index.read()
        if not photos.names:
            raise UserError(f"--gallery {gallery}: no photo to search; see docs/search.md")
        if self._flags.export is not None:
            export(self._flags.export, photos, {**self._about, "gallery": str(gallery.resolve())})
            log.info("exported %s vectors of length 1 to %s", f"{len(photos.names):,}", self._flags.export)
        ranking = build_ranking(photos, self._index.folder, self._options.get(RankingOptions))
        return Searcher(gallery, photos, ranking, self._encoder)
