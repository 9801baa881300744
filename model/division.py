"""Confident consensus division (CCD; Qin et al., CVPR 2024, section 3.3): which training pairs look mismatched.

Before every epoch the loss of every training pair is collected, in each embedding of the model. A mixture of two
Gaussians per embedding says which pairs have a small loss. Pairs that all embeddings call clean take part in the epoch,
pairs that none does are left out (they remain candidates for others), and a coin decides on the rest.

Shape letters: N pairs of the training split.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from model.adapters.token_selection import RDEOptions
from utils import UserError
from utils.distributed import on_main
from utils.options import opt

log = logging.getLogger("descry")


class MixtureSettings(NamedTuple):
    """How a mixture is fitted."""

    max_iter: int
    tol: float
    """the fit ends when the mean log likelihood changes by less"""
    reg_covar: float
    """added to both variances"""


SETTINGS: Mapping[str, MixtureSettings] = {
    "loose": MixtureSettings(10, 1e-2, 5e-4),
    "tight": MixtureSettings(100, 1e-4, 1e-6),
    "robust": MixtureSettings(100, 1e-4, 5e-4),
}
"""by the value of ``--division_fit``"""
FEW = 0.2
"""share of the pairs below which a division looks wrong: the paper exchanges at most four fifths"""


def published_fit(noisy_rate: float, dataset_name: str) -> str:
    """The settings that the published program chooses, by the share of noise that was injected and by the data set."""
    return "tight" if noisy_rate > 0.4 or dataset_name == "RSTPReid" else "loose"


@dataclass(frozen=True)
class DivisionOptions(RDEOptions):
    """Flags of the division."""

    division: str | None = opt(
        None,
        "leave out training pairs that look mismatched, divided anew before every epoch, in the losses itc, sdm, TAL "
        "and TRL [none; with --select_ratio consensus]",
        choices=("none", "consensus"),
    )
    division_fit: str = opt(
        "published",
        "how mixtures are fitted: stopping early (loose); to the end (tight), where one component can shrink to the "
        "pairs of loss 0; to the end with a larger least variance (robust); loose or, above --noisy_rate 0.4 and on "
        "RSTPReid, tight (published)",
        choices=(*SETTINGS, "published"),
    )
    division_plain: bool = opt(
        False,
        "collect the losses from pairs as they are, in the same full batches before every epoch; by default, as "
        "published, from random batches with augmentation",
    )

    @property
    def is_on(self) -> bool:
        """``--division``, or the default of the system."""
        return self.is_rde if self.division is None else self.division == "consensus"


class Part(NamedTuple):
    """What one embedding says of the pairs."""

    probability_N: np.ndarray
    """float32, of belonging to the component with the smaller mean"""
    clean_N: np.ndarray
    """bool"""


def is_clean(probability_N: np.ndarray) -> np.ndarray:
    """(N,) bool: above one half, or where all are, above that of the hundredth part with the smallest."""
    clean_N = probability_N > 0.5
    return probability_N > np.sort(probability_N)[len(probability_N) // 100] if clean_N.all() else clean_N


def split(loss_N: np.ndarray, settings: MixtureSettings, rng: np.random.RandomState) -> Part:
    """Fit a mixture of two Gaussians to the losses of all pairs; losses that are all equal are all clean."""
    from sklearn.mixture import GaussianMixture  # seconds to import, and only this loss needs it

    low, high = loss_N.min(), loss_N.max()
    if not high > low:
        return Part(np.ones(len(loss_N), np.float32), np.ones(len(loss_N), bool))
    share_N1 = ((loss_N - low) / (high - low)).reshape(-1, 1)
    mixture = GaussianMixture(2, random_state=rng, **settings._asdict()).fit(share_N1)
    probability_N = mixture.predict_proba(share_N1)[:, mixture.means_.argmin()]
    return Part(probability_N, is_clean(probability_N))


def consensus(parts: Sequence[np.ndarray], coin: torch.Generator) -> np.ndarray:
    """(N,) bool: pairs that take part, being clean (each of ``parts`` is (N,) bool) to all or to some and lucky."""
    votes_N = np.sum(parts, axis=0)
    labels_N = votes_N == len(parts)
    doubtful_N = ~labels_N & (votes_N > 0)
    labels_N[doubtful_N] = torch.randint(2, (int(doubtful_N.sum()),), generator=coin).numpy().astype(bool)
    return labels_N


class Division(nn.Module):
    """The labels of the training pairs: 1 for those that take part in this epoch, else 0."""

    def __init__(self, options: DivisionOptions, num_pairs: int) -> None:
        super().__init__()
        self.options = options
        # made anew before every epoch, so no weight; last.pth keeps it all the same
        self.register_buffer("clean", torch.ones(num_pairs, dtype=torch.bool), persistent=False)

    def divide(self, loss_KN: Tensor, seed: int, epoch: int, matched_N: Tensor | None = None) -> Mapping[str, float]:
        """Divide once, in the main process, by the losses of the pairs in each of K embeddings, and log the outcome.

        Args:
            loss_KN: (K, N) float32.
            seed: of the mixtures' start and of the coins, which differ from epoch to epoch.
            epoch: the one that comes next.
            matched_N: (N,) bool, the truth where captions were exchanged on purpose. It is for the report only.

        Returns:
            what was found, as scalars for the run's history.

        Raises:
            UserError: a loss is not finite.
        """
        labels_N, report = on_main(lambda: self._divide(loss_KN.cpu().numpy(), seed, epoch, matched_N))
        self.clean.copy_(torch.from_numpy(labels_N))
        return report

    def _divide(
        self, loss_KN: np.ndarray, seed: int, epoch: int, matched_N: Tensor | None
    ) -> tuple[np.ndarray, dict[str, float]]:
        if not np.isfinite(loss_KN).all():
            bad = int((~np.isfinite(loss_KN)).any(axis=0).argmax())
            raise UserError(f"division before epoch {epoch}: the loss of training pair {bad} is not finite")
        rng = np.random.RandomState(np.random.SeedSequence((seed, epoch)).generate_state(4))
        coin = torch.Generator().manual_seed(int(rng.randint(2**31)))
        settings = SETTINGS[self.options.division_fit]  # train.py has put one of these in place of "published"
        parts = [split(loss_N, settings, rng).clean_N for loss_N in loss_KN]
        labels_N = consensus(parts, coin)
        votes_N = np.sum(parts, axis=0)
        noisy_N, sure_N = votes_N == 0, votes_N == len(parts)
        counts = {"clean": sure_N.sum(), "uncertain": (~noisy_N & ~sure_N).sum(), "noisy": noisy_N.sum()}
        report = {name: float(count) for name, count in counts.items()} | {"used": float(labels_N.sum())}
        said = (
            f"{counts['clean']} pairs clean, {counts['uncertain']} uncertain, {counts['noisy']} noisy; "
            f"{labels_N.sum()} of {len(labels_N)} are used"
        )
        if matched_N is not None:
            wrong_N = ~matched_N.numpy()
            found = (noisy_N & wrong_N).sum()
            report["precision"] = 100.0 * found / max(noisy_N.sum(), 1)
            report["recall"] = 100.0 * found / max(wrong_N.sum(), 1)
            report["used_matched"] = 100.0 * (labels_N & ~wrong_N).sum() / max(labels_N.sum(), 1)
            said += (
                f". Of the {wrong_N.sum()} exchanged captions {report['recall']:.1f} % were called noisy (precision "
                f"{report['precision']:.1f} %); {report['used_matched']:.1f} % of the pairs used are matched"
            )
        log.info("division before epoch %d: %s", epoch, said)
        if labels_N.mean() < FEW:
            log.warning(
                "division before epoch %d: only %d of %d pairs are used; unless that many captions are mismatched, the "
                "mixtures do not suit these losses, and --division none trains on all pairs",
                epoch,
                labels_N.sum(),
                len(labels_N),
            )
        return labels_N, {name: float(value) for name, value in report.items()}
