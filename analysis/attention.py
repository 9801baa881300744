"""Which patches of an image each word of a caption is similar to, drawn on the image.

Shape letters: L caption tokens, M image tokens, D joint embedding, R rows and C columns of patches, H, W pixels.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from analysis.evaluated_run import EvaluatedRun
from analysis.page import Card, Section
from analysis.word_lists import topics_of
from datasets.augmentation.pixels import normalise
from datasets.contact_sheet import Tile
from datasets.images.decode import decode
from model.backbones.spec import BackboneOptions
from processor.metrics.scores import Retrieved
from utils.inputs import InputFormat, Tokenizer

QUERIES = 4
WORDS = 9
"""maps of a query; with the image itself they fill a row of the page"""
HEIGHT = 288
"""of a picture, in pixels"""


class Word(NamedTuple):
    """A word of a caption and its tokens."""

    text: str
    first: int
    """position of its first token"""
    end: int
    """one behind that of its last"""


def attention_section(run: EvaluatedRun, found: Sequence[Retrieved], folder: Path) -> Section | None:
    """Maps of some queries on their nearest right images, written to ``folder``; None for queries without a match."""
    model = run.restored.model
    form = model.input_format(run.options.get(BackboneOptions).text_length)
    cards = [_card(run, form, query, folder) for query in found if query.match is not None][:QUERIES]
    if not cards:
        return None
    selected = (
        " RDE makes its second embedding of the patches with a frame and of the words with a dot."
        if model.token_selection is not None
        else ""
    )
    return Section(
        "Words and patches",
        "The nearest image of the right person, and for words of the caption the cosine similarity of each patch with "
        "the word's token, from dark (least in this image) to bright (most); the number is the largest. A token of the "
        "text tower has read what stands before it, and only some losses train patches by themselves, so a map shows "
        f"where a similarity is and not why.{selected}",
        cards=tuple(cards),
    )


@torch.no_grad()
def _card(run: EvaluatedRun, form: InputFormat, found: Retrieved, folder: Path) -> Card:
    model, caption, path = run.restored.model, run.split.captions[found.query], run.split.paths[found.match.position]
    device = model.precision.device
    ids_1L, length_1 = form.tokenizer([caption], form.text_length)
    if not form.reads_padding:
        ids_1L = ids_1L[:, : int(length_1)]
    text = model.encode_text(ids_1L.to(device), length_1.to(device))
    pixels = torch.from_numpy(run.split.images.read(path))[None].to(device)
    image = model.encode_image(normalise(pixels, form.pixel_mean, form.pixel_std))
    grid = patch_grid(image.tokens.shape[1] - 1, form.image_size)
    words = chosen_words(caption, form.tokenizer, int(length_1), WORDS)
    chosen_words_at, chosen_patches = set(), []
    if model.token_selection is not None:
        position_1K, counts_1K = model.token_selection.text_choice(text.attention, length_1.to(device))
        chosen_words_at = set(position_1K[counts_1K].tolist())
        chosen_patches = (model.token_selection.image_choice(image.attention)[0] - 1).tolist()
    picture = decode(path)
    picture = picture.resize((max(1, round(HEIGHT * picture.width / picture.height)), HEIGHT), Image.Resampling.LANCZOS)
    folder.mkdir(parents=True, exist_ok=True)
    tiles = [_tile(framed(picture, chosen_patches, grid), folder / f"query_{found.query}.png", "the image")]
    maps = word_maps(text.tokens[0], image.tokens[0], words, grid)
    for number, (word, map_RC) in enumerate(zip(words, maps, strict=True)):
        dot = " •" if chosen_words_at & set(range(word.first, word.end)) else ""
        name = folder / f"query_{found.query}_{number}.png"
        tiles.append(_tile(overlaid(picture, map_RC), name, f"{word.text}{dot} {map_RC.max():.2f}"))
    return Card(f"Words of query {found.query} · rank {found.match.rank:,}", caption, tuple(tiles))


def _tile(picture: Image.Image, path: Path, label: str) -> Tile:
    picture.save(path)
    return Tile(path, label)


def patch_grid(patches: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of ``patches``: those whose ratio is nearest to that of the image's (height, width)."""
    pairs = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1] * image_size[1] / image_size[0])))


def chosen_words(caption: str, tokenizer: Tokenizer, length: int, most: int) -> list[Word]:
    """The first ``most`` words of a caption that are about a person's looks, each once; or else any words.

    ``length``: tokens of the caption, start and end included; words that were cut off are left out.
    """
    words: dict[str, Word] = {}
    place = tokenizer.first_word
    for ids in tokenizer.words(caption):
        if place + len(ids) >= length:
            break
        text = tokenizer.decode(ids).replace(" - ", "-").strip(" .,;:!?\"'")
        words.setdefault(text, Word(text, place, place + len(ids)))
        place += len(ids)
    words.pop("", None)
    every = list(words.values())
    return [word for word in every if topics_of(word.text)][:most] or every[:most]


def word_maps(text_LD: Tensor, image_MD: Tensor, words: Sequence[Word], grid: tuple[int, int]) -> list[np.ndarray]:
    """(R, C) cosine similarities of every patch with each word: with the mean of its tokens, each of length 1.

    ``image_MD`` begins with the pooled token, which is no patch.
    """
    text_LD, patch_MD = F.normalize(text_LD.float(), dim=1), F.normalize(image_MD[1:].float(), dim=1)
    maps = []
    for word in words:
        word_D = F.normalize(text_LD[word.first : word.end].mean(dim=0), dim=0)
        maps.append((patch_MD @ word_D).view(grid).cpu().numpy())
    return maps


def overlaid(picture: Image.Image, map_RC: np.ndarray) -> Image.Image:
    """A map in colours over the image in grey: from its least value, dark, to its largest, bright."""
    import matplotlib  # takes long to import

    span = float(np.ptp(map_RC)) or 1.0
    level = Image.fromarray(np.uint8(np.round(255 * (map_RC - map_RC.min()) / span)))
    level_HW = np.asarray(level.resize(picture.size, Image.Resampling.BICUBIC)) / 255
    colour_HW3 = matplotlib.colormaps["inferno"](level_HW)[..., :3] * 255
    grey_HW3 = np.asarray(picture.convert("L").convert("RGB"), dtype=float)
    return Image.fromarray(np.uint8(np.round(0.45 * grey_HW3 + 0.55 * colour_HW3)))


def framed(picture: Image.Image, patches: Sequence[int], grid: tuple[int, int]) -> Image.Image:
    """The image with frames around some patches, which are counted along the rows."""
    picture = picture.copy()
    draw, (rows, columns) = ImageDraw.Draw(picture), grid
    wide, high = picture.width / columns, picture.height / rows
    for patch in patches:
        row, column = divmod(patch, columns)
        box = (column * wide, row * high, (column + 1) * wide - 1, (row + 1) * high - 1)
        draw.rectangle(box, outline=(255, 210, 60))
    return picture
