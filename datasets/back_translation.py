"""Back translations of training captions: other words for the same, translated there and back (``captions_bt``)."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from datasets.annotations import json_list
from datasets.captions import AugmentOptions
from datasets.records import DataError, Dataset, ImageRecord

log = logging.getLogger("descry")


def add_back_translations(dataset: Dataset, options: AugmentOptions) -> Dataset:
    """The data set with the back translations of ``--back_translation_file``, if there is one; says how many it has.

    Raises:
        DataError: the file cannot be read or is faulty, or knows none of the images, or has as many translations of an
            image as it has not captions.
    """
    if not options.back_translation:
        return dataset
    if (path := options.back_translation_file) is not None:
        given = _read(path)
        train = tuple(_with_those(record, given, path) for record in dataset.train)
        dataset = replace(dataset, train=train, more_files=(*dataset.more_files, path))
    captions = sum(len(record.captions) for record in dataset.train)
    translated = sum(bool(text) for record in dataset.train for text in record.back_translations)
    if not translated and options.back_translation_file is not None:
        raise DataError(f"--back_translation_file {path}: knows none of the training images of {dataset.name}")
    log_it = log.info if translated else log.warning
    log_it("back translations: %s of %s training captions have one (captions_bt)", f"{translated:,}", f"{captions:,}")
    return dataset


def _read(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Back translations by the image's path, from a list of ``{file_path, captions_bt}``."""
    translations = {}
    for number, record in enumerate(json_list(path).records):
        try:
            texts = record["captions_bt"]
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise TypeError
            translations[record["file_path"]] = tuple(text.strip() for text in texts)
        except (KeyError, TypeError):
            shown = json.dumps(record)[:80]
            raise DataError(
                f"{path}: record {number} needs file_path and captions_bt, a list of texts, found {shown}"
            ) from None
    return translations


def _with_those(record: ImageRecord, given: Mapping[str, tuple[str, ...]], path: Path) -> ImageRecord:
    parts = record.path.parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    if (name := next((name for name in names if name in given), None)) is None:
        return record
    if len(given[name]) != len(record.captions):
        raise DataError(
            f"{path}: {name} has {len(given[name])} back translations, but {len(record.captions)} captions; give one "
            'for each, "" where there is none'
        )
    return record._replace(back_translations=given[name])
