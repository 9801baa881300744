"""Label noise: a share of the training captions is exchanged among the training pairs, to study mismatched data.

Shape letter: N pairs of the training split in file order, which is each caption of each image.
"""

import logging
import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from datasets.records import Dataset, counts
from utils import FileError, UserError
from utils.files import replacing
from utils.options import opt

log = logging.getLogger("descry")

_MOST_FIXED = 10
"""of captions that are shuffled, one stays in place on average, and more than this many once in 10^8 times"""


@dataclass(frozen=True)
class NoiseOptions:
    """Flags of label noise."""

    noisy_rate: float | None = opt(
        None,
        "share of training captions exchanged among pairs; by default what --noisy_file holds, or 0",
        least=0,
        most=1,
    )
    noisy_file: str = opt("", "NPY file that says which captions are exchanged; written if it is not there")
    noisy_seed: int = opt(1, "seed of the exchange, apart from --seed; 1 as published", least=0, most=2**32 - 1)


def exchange_captions(dataset: Dataset, options: NoiseOptions) -> Dataset:
    """The data set with its training captions exchanged as the flags say, and logged; images and identities stay.

    Args:
        dataset: as it was read; its evaluation splits stay as they are.
        options: the flags. A ``noisy_file`` that does not exist is written.

    Raises:
        UserError: the file cannot be used, or does not fit the training split or the rate.
        FileError: the file cannot be written.
    """
    pairs = counts(dataset.train)[2]
    rate, path = options.noisy_rate, Path(options.noisy_file)
    if options.noisy_file and os.path.exists(path):  # noqa: PTH110 - Path.exists lets an overlong name through as a traceback
        index_N = read_index(path, pairs)
        _check_rate(index_N, options)
        source = str(path)
    elif rate:
        index_N = noise_index(pairs, rate, options.noisy_seed)
        source = f"--noisy_rate {rate:g}, --noisy_seed {options.noisy_seed}"
        if options.noisy_file:
            _write_index(path, index_N)
            source += f", written to {path}"
    elif options.noisy_file and rate is None:
        raise UserError(f"--noisy_file {path}: no such file; with --noisy_rate R it is written")
    else:  # the published command for rate 0 names a file as well, which then is neither read nor written
        return dataset
    log.info("label noise: %s (%s)", _shares(index_N), source)
    texts = [
        text
        for record in dataset.train
        for text in zip(record.captions, record.back_translations or [""] * len(record.captions), strict=True)
    ]
    given = iter([texts[place] for place in index_N])
    train = []
    for record in dataset.train:
        captions, translations = zip(*islice(given, len(record.captions)), strict=True)
        train.append(record._replace(captions=captions, back_translations=translations if any(translations) else ()))
    files = (*dataset.more_files, *([path] if options.noisy_file else []))
    return replace(dataset, train=tuple(train), caption_index=index_N, more_files=files)


def noise_index(pairs: int, rate: float, seed: int = 1) -> np.ndarray:
    """Whose caption each pair gets, (N,) int64: the first int(rate * N) pairs of a random order exchange theirs.

    With seed 1 this is what the published index files of RDE (Qin et al., CVPR 2024) hold. About one of the pairs
    that take part keeps its own caption, and an exchange within an identity is possible.
    """
    rng = np.random.RandomState(seed)  # noqa: NPY002 - the generator of the published files
    order_N = np.arange(pairs)
    rng.shuffle(order_N)
    affected = order_N[: int(rate * pairs)]
    donors = affected.copy()
    rng.shuffle(donors)
    index_N = np.arange(pairs)
    index_N[affected] = donors
    return index_N


def read_index(path: Path, pairs: int) -> np.ndarray:
    """The index of a NPY file, (N,) int64, checked.

    Raises:
        UserError: it cannot be read, or is no permutation of 0..``pairs`` - 1 in int64.
    """

    def unusable(reason: str) -> UserError:
        return UserError(f"--noisy_file {path}: {reason}")

    try:
        with path.open("rb") as file:
            index_N = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise unusable(f"cannot be read ({error.strerror or error})") from None
    except Exception as error:
        first = " ".join(str(error).split())[:200] or type(error).__name__
        raise unusable(f"not a NPY file ({first})") from None
    if index_N.dtype != np.int64 or index_N.ndim != 1:
        found = f"{index_N.dtype} of the shape {index_N.shape}"
        raise unusable(f"expected one row of int64 numbers, found {found}; save it with numpy.save as int64")
    if len(index_N) != pairs:
        raise unusable(
            f"made for {len(index_N):,} training pairs, but there are {pairs:,}; name the file of this data set, or "
            "another path, to which --noisy_rate R writes a new one"
        )
    once_N = np.bincount(index_N[(index_N >= 0) & (index_N < pairs)], minlength=pairs) == 1
    if not once_N.all():
        lost = np.flatnonzero(~once_N)[0]
        raise unusable(f"not a permutation of 0 to {pairs - 1}: {lost} does not occur exactly once; make it anew")
    return index_N


def _check_rate(index_N: np.ndarray, options: NoiseOptions) -> None:
    """Refuse a rate that is given beside a file and is not what the file was made with."""
    if options.noisy_rate is None:
        return
    fixed = int(options.noisy_rate * len(index_N)) - _changed(index_N)
    if not -1 <= fixed <= _MOST_FIXED:  # -1: a program that rounds the number of captions up
        raise UserError(
            f"--noisy_rate {options.noisy_rate:g}: does not fit --noisy_file {options.noisy_file}, by which "
            f"{_shares(index_N)}; leave --noisy_rate out, or name another file"
        )


def _shares(index_N: np.ndarray) -> str:
    changed = _changed(index_N)
    return f"{changed:,} of {len(index_N):,} training pairs ({changed / len(index_N):.1%}) have another one's caption"


def _changed(index_N: np.ndarray) -> int:
    return int((index_N != np.arange(len(index_N))).sum())


def _write_index(path: Path, index_N: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"--noisy_file {path}: cannot be written ({error.strerror}); choose another path") from None
    with replacing(path) as file:
        np.save(file, index_N)
