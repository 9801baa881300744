"""What one training sample contributes to a batch, field by field; only what the active losses read is produced.

Every random choice is a function of (seed, epoch, sample, field, visit), so workers, resuming and the set of active
losses change nothing.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from datasets.augmentation import IMAGE_FIELDS, View, chosen_views, view_named
from datasets.captions import AugmentOptions, hide_tokens, mask_tokens, words_in
from utils import UserError
from utils.inputs import Tokenizer


@dataclass(frozen=True)
class Sample:
    """One (image, caption) pair of an epoch."""

    seed: int
    epoch: int
    index: int
    """position of the pair in the training split"""
    pid: int
    image_id: int
    tokens_L: np.ndarray
    """(L,) int64 token ids, padded"""
    length: int
    """how many of them are tokens, start and end included"""
    tokenizer: Tokenizer
    """where they come from"""
    size: tuple[int, int]
    """(height, width) of the image"""
    original: tuple[int, int] = (0, 0)
    """(height, width) of the image in its file, where some view depends on it"""
    visit: int = 0
    """0 in training; another pass over the data in the same epoch has another number, and thus other random choices"""

    def rng(self, field: str) -> np.random.Generator:
        """A generator of its own for each (seed, epoch, sample, field, visit)."""
        name = f"{field} {self.visit}" if self.visit else field
        return np.random.default_rng((self.seed, self.epoch, self.index, zlib.crc32(name.encode())))

    @property
    def words(self) -> np.ndarray:
        """(L,) bool: which positions hold a word that can be hidden."""
        return words_in(self.tokens_L, self.length, self.tokenizer)


Producer = Callable[[Sample, AugmentOptions], dict[str, np.ndarray]]


def _second_caption(sample: Sample, options: AugmentOptions) -> dict[str, np.ndarray]:
    hidden_L = hide_tokens(sample.tokens_L, sample.words, sample.tokenizer, sample.rng("caption_ids_aug"))
    return _text("caption_ids_aug", hidden_L, sample)


def _mlm(sample: Sample, options: AugmentOptions) -> dict[str, np.ndarray]:
    rng = sample.rng("mlm_ids")
    masked_L, labels_L = mask_tokens(sample.tokens_L, sample.words, sample.tokenizer, rng, options)
    return _text("mlm_ids", masked_L, sample) | {"mlm_labels": labels_L}


def _mask_draws(sample: Sample, options: AugmentOptions) -> dict[str, np.ndarray]:
    """For losses that mask captions with probabilities of their own: a draw for each position, what stands there if it
    is masked (the mask, another word or the same one), and whether it may be."""
    rng, words, ids_L = sample.rng("mask_draws"), sample.tokenizer.word_ids, sample.tokens_L
    draw_L, fate_L = rng.random((2, len(ids_L)), dtype=np.float32)
    other_L = words[rng.integers(0, len(words), len(ids_L))]
    kept_L = np.where(fate_L < options.masked_token_rate + options.masked_token_unchanged_rate, ids_L, other_L)
    hidden_L = np.where(fate_L < options.masked_token_rate, sample.tokenizer.mask_id, kept_L)
    return {"mask_draws": draw_L, "mask_hidden": hidden_L, "mask_words": sample.words}


def _text(field: str, ids_L: np.ndarray, sample: Sample) -> dict[str, np.ndarray]:
    """A text field and, beside it, the length of its caption."""
    return {field: ids_L, f"{field}_lengths": np.int64(sample.length)}


PRODUCERS: dict[str, Producer] = {
    "caption_ids": lambda sample, options: _text("caption_ids", sample.tokens_L, sample),
    "caption_ids_aug": _second_caption,
    "mlm_ids": _mlm,
    "mlm_labels": _mlm,
    "mlm_positions": _mlm,
    "mask_draws": _mask_draws,
    "mask_hidden": _mask_draws,
    "mask_words": _mask_draws,
    "pids": lambda sample, options: {"pids": np.int64(sample.pid)},
    "image_ids": lambda sample, options: {"image_ids": np.int64(sample.image_id)},
    "index": lambda sample, options: {"index": np.int64(sample.index)},
}
"""batch field to what makes it; image fields give the numbers of a view, applied to the pixels on the device"""

TEXT_FIELDS = ("caption_ids", "caption_ids_aug", "mlm_ids")


def image_views(fields: tuple[str, ...], options: AugmentOptions, plain: bool = False) -> Mapping[str, View]:
    """The views behind the image fields among these.

    If ``plain``, or with a second, augmented view of the image beside it, ``images`` is the image as it is, whatever
    ``--img_aug`` says.
    """
    names = chosen_views(options.augment, options.img_aug)
    if plain or ("images_aug" in fields and not options.augment):
        names = {**names, "images": "plain"}
    return {field: view_named(names[field]) for field in fields if field in IMAGE_FIELDS}


def producers_for(fields: tuple[str, ...], views: Mapping[str, View]) -> tuple[Producer, ...]:
    """The producers behind these fields, each once; ``views``: of the image fields among them.

    Raises:
        ValueError: names an unknown field and the choices.
    """
    made = {field: functools.partial(_view, field, view) for field, view in views.items()}
    for field in fields:
        if field not in PRODUCERS and field not in made:
            choices = ", ".join([*IMAGE_FIELDS, *PRODUCERS])
            raise ValueError(f"no producer makes the batch field {field!r}; there are {choices}")
    return tuple(dict.fromkeys({**PRODUCERS, **made}[field] for field in fields))


def _view(field: str, view: View, sample: Sample, options: AugmentOptions) -> dict[str, np.ndarray]:
    return {field: view.draw(sample.rng(field), sample.size, sample.original)}


def trim(batch: dict[str, np.ndarray], padded: tuple[str, ...]) -> None:
    """Cut text fields to their longest caption, except those whose padding a loss can see.

    Exact where no token depends on the padding behind it, as in causal attention.
    """
    for field in TEXT_FIELDS:
        if field in batch and field not in padded:
            longest = int(batch[f"{field}_lengths"].max())
            for name in (field, "mlm_labels") if field == "mlm_ids" else (field,):
                batch[name] = batch[name][:, :longest]


def masks_all_captions(fields: tuple[str, ...], options: AugmentOptions) -> bool:
    """Whether every loss sees the masked caption, as in the published code whenever captions are masked at all.

    Not where a second view of the caption is made: the first one is clean then.
    """
    masked = options.MLM or "mlm_ids" in fields
    return masked and not options.clean_captions and "caption_ids_aug" not in fields


def fields_to_make(fields: tuple[str, ...], options: AugmentOptions) -> tuple[str, ...]:
    """The fields that the losses need, less the clean caption where the masked one takes its place."""
    if not masks_all_captions(fields, options):
        return fields
    others = tuple(field for field in fields if field != "caption_ids")
    return tuple(dict.fromkeys((*others, "mlm_ids")))


def refuse_unread(fields: tuple[str, ...], options: AugmentOptions) -> None:
    """Raise the UserError about a view that ``--augment`` asks for and no loss reads."""
    for value in options.augment:
        field, equals, _ = value.partition("=")
        if equals and field not in fields:
            raise UserError(f"--augment {value}: none of --loss_names reads {field}; leave it out")


def require_mask(fields: tuple[str, ...], options: AugmentOptions, tokenizer: Tokenizer) -> None:
    """Refuse fields with hidden words where no token stands for one.

    Raises:
        UserError: says what asks for them.
    """
    made = fields_to_make(fields, options)
    hidden = any(field in made for field in ("caption_ids_aug", "mlm_ids", "mask_hidden"))
    if tokenizer.mask_id is None and (hidden or options.txt_aug):
        flag = "--txt_aug" if options.txt_aug else "--MLM" if options.MLM else "--loss_names"
        raise UserError(
            f"{flag}: words are to be hidden (mlm and cons need it), but this backbone's tokenizer has no mask token; "
            "leave such losses, --MLM and --txt_aug out"
        )


def aliases(fields: tuple[str, ...], options: AugmentOptions) -> dict[str, str]:
    """Field names that share the tensor of another field."""
    masked = masks_all_captions(fields, options) and "caption_ids" in fields
    return {"caption_ids": "mlm_ids", "caption_ids_lengths": "mlm_ids_lengths"} if masked else {}
