"""From flags to a searcher: the model of a run, and the index of a folder of photos."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from datasets.options import DataOptions
from gallery.index import EncodedPhotos, GalleryIndex, index_folder
from gallery.options import RankingOptions, SearchOptions
from gallery.photos import PhotoBatch, find_photos, photo_batches
from gallery.ranking import build_ranking
from gallery.results import export
from gallery.searcher import Searcher
from model.adapters.lora import LoRAOptions
from model.backbones.spec import BackboneOptions
from model.checkpoints.restore import restore
from model.feature_encoder import FeatureEncoder
from utils import UserError
from utils.device import DeviceOptions, pick_precision
from utils.files import file_sha256
from utils.options import Options

log = logging.getLogger("descry")


def open_searcher(options: Options) -> Searcher:
    """Load the checkpoint, bring the index up to date and export it, as the flags say.

    Raises:
        UserError: names the flag or file and what is wrong with it.
    """
    flags, run_dir = options.get(SearchOptions), options.config_file.parent
    checkpoint = flags.checkpoint or run_dir / "best.pth"
    restored = restore(checkpoint, options.get, pick_precision(options.get(DeviceOptions)))
    model, backbone = restored.model, options.get(BackboneOptions)
    log.info("searching with %s on %s", checkpoint, model.precision)
    if model.attends_over_batch:
        log.warning("--php_attention batch: photos and queries are encoded one by one here; scores differ from test.py")
    encoder = FeatureEncoder(model, model.input_format(backbone.text_length))
    # Everything that a feature depends on besides the photo; an index with other values is never used.
    about = {
        "checkpoint_sha256": file_sha256(checkpoint),
        "pretrain_choice": backbone.pretrain_choice,  # says which activation and pixel statistics
        "img_size": list(backbone.img_size),
        "stride_size": backbone.stride_size,
        "lora_alpha": options.get(LoRAOptions).lora_alpha,
        "parsing": asdict(restored.parsing),
        "precision": model.precision.name,
    }
    if backbone.pixel_statistics is not None:
        about["pixel_statistics"] = backbone.pixel_statistics
    if backbone.eval_filter != "bilinear":
        about["eval_filter"] = backbone.eval_filter
    if model.token_selection is not None:
        about["select_ratio"] = model.token_selection.ratio
    folder = index_folder(flags.index_dir or run_dir / "search" / "index", flags.gallery, about)
    index = GalleryIndex(folder, about, model.feature_width)
    if flags.update:
        options.get(DataOptions).check_workers()
        _update(index, encoder, flags, options.get(DataOptions).workers)
    photos = index.read()
    if not photos.names:
        raise UserError(f"--gallery {flags.gallery}: no photo to search; see docs/search.md")
    if flags.export is not None:
        export(flags.export, photos, {**about, "gallery": str(flags.gallery.resolve())})
        log.info("exported %s vectors of length 1 to %s", f"{len(photos.names):,}", flags.export)
    ranking = build_ranking(photos, folder, options.get(RankingOptions))
    return Searcher(flags.gallery, photos, ranking, encoder)


def encoded(batches: Iterable[PhotoBatch], encoder: FeatureEncoder) -> Iterator[EncodedPhotos]:
    """Photos to features, batch by batch."""
    for names, pixels_BCHW, faults in batches:
        yield EncodedPhotos(names, encoder.encode_pixels(pixels_BCHW).numpy(), faults)


def _update(index: GalleryIndex, encoder: FeatureEncoder, flags: SearchOptions, workers: int) -> None:
    """Bring the index up to date, and say what the folder holds."""
    stamps, links, others = find_photos(flags.gallery)
    log.info("%s: %s photos, %s other files", flags.gallery, f"{len(stamps):,}", f"{others:,}")
    if links:
        log.warning("%s: skipped %d symbolic links; copy the files into the folder instead", flags.gallery, links)

    def encode(names: Sequence[str]) -> Iterator[EncodedPhotos]:
        form = encoder.inputs
        batches = photo_batches(names, flags.gallery, form.image_size, flags.index_batch, workers, form.resize_filter)
        return encoded(batches, encoder)

    if faults := index.update(stamps, encode):
        log.warning("%d photos cannot be read:\n%s", len(faults), "\n".join(faults.values()))
