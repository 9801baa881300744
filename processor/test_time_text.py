"""More text at test time, without training: paraphrases of the queries and descriptions of the gallery images.

Language models and captioners write them elsewhere (as in the test-time part of HAM); here they come from files. With
features of length 1, f of texts and g of images: query = f(text) + a * mean f(its paraphrases), gallery entry =
g(image) + b * mean f(its descriptions). Ranking by cosine, (1 - b) * g + b * f is the same with b / (1 - b).

Shape letters: Q queries, G gallery images, N entries of either, T texts, D embedding.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.annotations import SPLITS, first_few
from datasets.batches.evaluation_split import EvaluationSplit
from datasets.json_file import load_json
from datasets.records import Dataset, ImageRecord
from processor.evaluator import Features
from utils import UserError
from utils.options import opt

log = logging.getLogger("descry")

MIX_QUERY, MIX_GALLERY = 0.75, 0.3
"""published weights"""

Encode = Callable[[Sequence[str]], Tensor]
"""texts to their features (T, D), each of length 1"""


@dataclass(frozen=True)
class TestTimeTextOptions:
    """Flags of texts that are mixed in at test time."""

    paraphrases: Path | None = opt(None, 'also test with these added to the queries: a json {"query text": [texts]}')
    descriptions: Path | None = opt(None, 'also test with these added to the images: a json {"image path": [texts]}')
    mix_query: float = opt(MIX_QUERY, "weight of the mean paraphrase beside its query", least=0)
    mix_gallery: float = opt(MIX_GALLERY, "weight of the mean description beside its image", least=0)

    def __post_init__(self) -> None:
        if self.paraphrases is None and self.mix_query != MIX_QUERY:
            raise UserError("--mix_query: has no effect without --paraphrases")
        if self.descriptions is None and self.mix_gallery != MIX_GALLERY:
            raise UserError("--mix_gallery: has no effect without --descriptions")


@dataclass(frozen=True)
class TestTimeTexts:
    """The texts of a split's queries and images, as far as there are files."""

    options: TestTimeTextOptions
    of_query: list[Sequence[str]] | None
    """(Q) lists, empty for a query without paraphrases"""
    of_image: list[Sequence[str]] | None
    """(G) lists"""

    @classmethod
    def read(cls, options: TestTimeTextOptions, dataset: Dataset, split: EvaluationSplit) -> "TestTimeTexts | None":
        """The files of the flags; None without any.

        Raises:
            UserError: a file cannot be read, has another form, names a query or image that the data set does not have,
                or nothing of the split.
        """
        of_query = of_image = None
        if options.paraphrases is not None:
            given = read_texts(options.paraphrases, "--paraphrases")
            _refuse_unknown(options.paraphrases, "--paraphrases", "queries", given, _all_captions(dataset))
            of_query = [given.get(caption, ()) for caption in split.captions]
            _log_coverage("--paraphrases", options.paraphrases, "queries", of_query)
        if options.descriptions is not None:
            given = read_texts(options.descriptions, "--descriptions")
            paths = [record.path for name in SPLITS for record in dataset.split(name)]
            key_of = match_paths(options.descriptions, list(given), paths)
            _refuse_unknown(options.descriptions, "--descriptions", "images", given, set(key_of.values()))
            of_image = [given[key_of[path]] if path in key_of else () for path in split.paths]
            _log_coverage("--descriptions", options.descriptions, "images", of_image)
        return None if of_query is of_image is None else cls(options, of_query, of_image)

    def mixed(self, features: Features, encode: Encode) -> Iterator[tuple[str, Features]]:
        """Titles and features with the paraphrases, with the descriptions, and with both, as far as there are any."""
        texts, images = features.text_QD, features.image_GD
        if self.of_query is not None:
            texts = mix(texts, self.of_query, self.options.mix_query, encode)
            yield "paraphrases", features._replace(text_QD=texts)
        if self.of_image is not None:
            images = mix(images, self.of_image, self.options.mix_gallery, encode)
            yield "descriptions", features._replace(image_GD=images)
        if self.of_query is not None and self.of_image is not None:
            yield "both", features._replace(text_QD=texts, image_GD=images)


def mix(feature_ND: Tensor, texts: Sequence[Sequence[str]], weight: float, encode: Encode) -> Tensor:
    """(N, D) unit features plus ``weight`` times the mean unit feature of each one's texts, where it has any."""
    every = list(dict.fromkeys(text for each in texts for text in each))
    place = {text: number for number, text in enumerate(every)}
    feature_TD = F.normalize(encode(every).to(feature_ND.device, torch.float32), dim=1)
    mixed_ND = F.normalize(feature_ND.float(), dim=1)
    row_P = [row for row, each in enumerate(texts) for _ in each]
    text_P = [place[text] for each in texts for text in each]
    share_P = torch.tensor([weight / len(each) for each in texts for _ in each], device=mixed_ND.device)
    return mixed_ND.index_add(0, torch.tensor(row_P, device=mixed_ND.device), share_P[:, None] * feature_TD[text_P])


def read_texts(path: Path, flag: str) -> dict[str, list[str]]:
    """A json object of lists of texts; blanks at both ends are cut off, as those of captions are.

    Raises:
        UserError: names the file, the entry and the form that was expected.
    """
    content = load_json(path)
    expected = 'expected {"...": ["text", "text"], ...}'
    if not isinstance(content, dict) or not content:
        what = "nothing in it" if content == {} else f"a JSON {type(content).__name__}"
        raise UserError(f"{flag} {path}: {what}; {expected}")
    found: dict[str, list[str]] = {}
    for key, texts in content.items():
        is_list = isinstance(texts, list) and all(isinstance(text, str) and text.strip() for text in texts)
        if not is_list or not texts:
            raise UserError(f"{flag} {path}: entry {key[:60]!r} is no list of texts that are not empty; {expected}")
        found.setdefault(key.strip(), []).extend(text.strip() for text in texts)
    return found


def match_paths(file: Path, keys: Sequence[str], paths: Sequence[Path]) -> dict[Path, str]:
    """From image files to the keys that name them: by their whole path, or by any last part of it.

    Raises:
        UserError: a key fits several images.
    """
    key_by_parts = {PurePath(key).parts: key for key in keys}
    lengths = sorted({len(parts) for parts in key_by_parts}, reverse=True)
    found: dict[Path, str] = {}
    first: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        parts = path.parts
        key = next((key_by_parts[end] for n in lengths if (end := parts[-n:] if n else ()) in key_by_parts), None)
        if key is not None:
            if key in first:
                raise UserError(f"--descriptions {file}: {key!r} fits {first[key]} and {path}; give more of its path")
            found[path], first[key] = key, path
    return found


def _all_captions(dataset: Dataset) -> set[str]:
    records: list[ImageRecord] = [record for name in SPLITS for record in dataset.split(name)]
    return {caption for record in records for caption in record.captions}


def _refuse_unknown(file: Path, flag: str, what: str, given: Mapping[str, object], known: set[str]) -> None:
    if unknown := [key for key in given if key not in known]:
        shown = first_few([repr(key[:60]) for key in unknown], ", ")
        raise UserError(
            f"{flag} {file}: {len(unknown)} of {len(given)} entries are of {what} that the data set does not have: "
            f"{shown}; the text or path must be that of the annotation"
        )


def _log_coverage(flag: str, file: Path, what: str, texts: Sequence[Sequence[str]]) -> None:
    has = sum(bool(each) for each in texts)
    if not has:
        raise UserError(f"{flag} {file}: nothing in it is of the {what} of this split; see --test_split")
    rest = "" if has == len(texts) else "; the others stay as they are"
    log.info("%s: for %d of %d %s, %.1f each%s", flag, has, len(texts), what, sum(map(len, texts)) / has, rest)
