"""Comparing samples of random numbers."""

import numpy as np


def largest_gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference between the shares below any point (the statistic of Kolmogorov and Smirnov)."""
    points = np.union1d(a, b)
    shares = [np.searchsorted(np.sort(values), points, side="right") / len(values) for values in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())
