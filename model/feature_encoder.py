"""A trained run as a function from images and captions to features of length 1: for notebooks, search and exports.

The only file of this package that imports ``datasets``: the pixels must be those of evaluation, so the code that makes
them is the same. See docs/api.md.

Shape letters: N images or captions, G gallery images, B batch, D embedding, Q queries, K hits.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets.augmentation.pixels import normalise
from datasets.images.decode import load_resized, resize_picture
from datasets.images.prefetch import prefetched
from datasets.parallel import chunked
from model.adapters.lora import LoRAOptions
from model.adapters.parsing import ParsingOptions
from model.adapters.token_selection import TokenSelectionOptions
from model.backbones.spec import BackboneOptions, Encoded
from model.checkpoints.archives import SAFETENSORS, flags_in
from model.checkpoints.restore import restore
from model.retriever import Retriever
from utils import UserError
from utils.device import DeviceOptions, pick_precision
from utils.inputs import InputFormat
from utils.log import hide_bar
from utils.options import Options, flag_names, flags_of, read_flags, typed_flags

RUN_OPTIONS = (BackboneOptions, LoRAOptions, ParsingOptions, TokenSelectionOptions)
"""what of a run's flags encoding depends on"""
_SCORES_AT_ONCE = 1 << 24


class Ranked(NamedTuple):
    """The images nearest to each caption, nearest first."""

    scores: Tensor
    """(Q, K) float32 cosines"""
    positions: Tensor
    """(Q, K) int64 rows of the image features"""


@dataclass(frozen=True)
class FeatureEncoder:
    """A model with what it takes to encode images and captions; features are float32, on the CPU, of length 1."""

    model: Retriever
    inputs: InputFormat

    def encode_image(
        self, images: Sequence[str | Path | Image.Image], batch_size: int = 64, progress: bool | None = True
    ) -> Tensor:
        """(N, D) of image files or PIL images; a bar shows the progress of what takes more than two seconds.

        ``progress``: None shows the bar on a terminal only, by the main process.

        Raises:
            ImageError: an image cannot be decoded.
            UserError: there is no image.
        """
        images = [images] if isinstance(images, str | Path | Image.Image) else list(images)
        batches = _batches(images, batch_size, "image")
        parts = (self.encode_pixels(pixels) for _, pixels in prefetched(batches, self._pixels))
        return _joined(parts, _bar("images", len(images), progress))

    def encode_text(self, captions: Sequence[str], batch_size: int = 256, progress: bool | None = True) -> Tensor:
        """(N, D) of captions, truncated to the length that the model reads; see :meth:`truncation`.

        ``progress``: as in :meth:`encode_image`.

        Raises:
            UserError: there is no caption.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        batches = _batches(captions, batch_size, "caption")
        parts = (self._encode_captions(batch) for batch in batches)
        return _joined(parts, _bar("captions", len(captions), progress))

    def rank(self, captions: Sequence[str], image_features: Tensor, k: int = 10) -> Ranked:
        """The best ``k`` images (all, where there are fewer) for each caption; equal scores in the images' order.

        ``image_features`` (G, D) are what :meth:`encode_image` gives.

        Raises:
            UserError: there is no caption, k is below 1, or the features are not of this model.
        """
        if k < 1:
            raise UserError(f"k={k}: ask for at least one image")
        text_QD = self.encode_text(captions)
        if image_features.ndim != 2 or image_features.shape[1] != text_QD.shape[1] or not len(image_features):
            shape = tuple(image_features.shape)
            raise UserError(f"image_features of shape {shape}: expected (images, {text_QD.shape[1]}) from encode_image")
        image_DG = image_features.float().cpu().T
        scores, positions = [], []
        for part_BD in text_QD.split(max(1, _SCORES_AT_ONCE // len(image_features))):
            score_BG, position_BG = (part_BD @ image_DG).sort(dim=1, descending=True, stable=True)
            scores.append(score_BG[:, :k].clone())  # or the whole of it would be kept
            positions.append(position_BG[:, :k].clone())
        return Ranked(torch.cat(scores), torch.cat(positions))

    def encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, D) of uint8 pixels at the model's image size."""
        mean, std = self.inputs.pixel_mean, self.inputs.pixel_std
        return self._encode(lambda pixels: self.model.encode_image(normalise(pixels, mean, std)), pixels_BCHW)

    def truncation(self, text: str) -> str | None:
        """What to tell a user whose query is too long, otherwise None."""
        tokenizer = self.inputs.tokenizer
        length, room = len(tokenizer.encode(text)), self.inputs.text_length - tokenizer.num_special
        return f"query truncated from {length} to {room} tokens" if length > room else None

    def _pixels(self, images: Sequence[str | Path | Image.Image]) -> Tensor:
        """(B, 3, H, W) uint8, the pixels of evaluation."""
        form = self.inputs.image_size, self.inputs.resize_filter
        pictures = (
            resize_picture(image, *form) if isinstance(image, Image.Image) else load_resized(Path(image), *form)
            for image in images
        )
        return torch.stack([torch.from_numpy(pixels_CHW) for pixels_CHW in pictures])

    def _encode_captions(self, captions: Sequence[str]) -> Tensor:
        ids_BL, lengths_B = self.inputs.tokenizer(captions, self.inputs.text_length)
        if not self.inputs.reads_padding:
            ids_BL = ids_BL[:, : int(lengths_B.max())]
        return self._encode(self.model.encode_text, ids_BL, lengths_B)

    @torch.no_grad()  # not inference mode: a probe may be trained on the features
    def _encode(self, encode: Callable[..., Encoded], *inputs: Tensor) -> Tensor:
        """Features of inputs with one row per sample."""
        if not len(inputs[0]):
            return torch.empty(0, 0)
        inputs = [tensor.to(self.model.precision.device, non_blocking=True) for tensor in inputs]
        # A model that attends over the batch gets each sample alone: no feature may depend on its neighbours.
        size = 1 if self.model.attends_over_batch else len(inputs[0])
        parts = zip(*(tensor.split(size) for tensor in inputs), strict=True)
        feature_BD = torch.cat([encode(*part).feature for part in parts])
        return torch.nn.functional.normalize(feature_BD, dim=1).cpu()


def _batches(items: Sequence[Any], size: int, kind: str) -> list[Sequence[Any]]:
    if not items:
        raise UserError(f"no {kind} to encode")
    if size < 1:
        raise UserError(f"batch_size={size}: expected at least 1")
    return chunked(items, size)


def _bar(what: str, total: int, progress: bool | None) -> tqdm:
    return tqdm(desc=f"encoding {what}", total=total, delay=2, disable=hide_bar() if progress is None else not progress)


def _joined(parts: Iterable[Tensor], bar: tqdm) -> Tensor:
    """(N, D) of parts (B, D), each of which moves the bar."""
    features = []
    with bar:
        for part_BD in parts:
            features.append(part_BD)
            bar.update(len(part_BD))
    return torch.cat(features)


def load_run(run: str | Path, checkpoint: str | Path | None = None, device: str = "auto") -> FeatureEncoder:
    """The encoder of a run directory, ours or a published one, in float32.

    Args:
        run: the directory, which holds ``configs.yaml``; or what ``export.py --format safetensors`` wrote.
        checkpoint: weights; default: ``best.pth`` of the run.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: says what is missing, damaged or does not fit.
    """
    run = Path(run)
    path, weights = run / "configs.yaml", run / "best.pth"
    exported = run / f"model{SAFETENSORS}"
    if path.is_file():
        flags = read_flags(path)
    elif exported.is_file():
        flags, path, weights = flags_in(exported), exported, exported
    else:
        problem = "no configs.yaml in it; name a run directory" if run.is_dir() else "no such run directory"
        raise UserError(f"{run}: {problem}")
    names = flag_names(*RUN_OPTIONS)
    flags = {key: value for key, value in flags.items() if key.lower() in names}
    values = typed_flags(flags, path, flags_of(*RUN_OPTIONS))
    options = Options(RUN_OPTIONS, values, {}, path)
    precision = pick_precision(DeviceOptions(device=device, precision="fp32"))
    model = restore(Path(checkpoint or weights), options.get, precision).model
    return FeatureEncoder(model, model.input_format(options.get(BackboneOptions).text_length))
