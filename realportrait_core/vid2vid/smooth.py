"""A Kalman smoother for sequences over a clip: poses, expressions, face points."""

import torch

from ..errors import InputError


def kalman_smooth(sequence: torch.Tensor, observation_variance: float = 3e-7, process_variance: float = 1e-5) -> torch.Tensor:
    """Rauch-Tung-Striebel smoothing of (L, ...) along L; each coordinate is a random walk of its own.

    The larger the ratio of observation to process variance, the smoother. The walk starts at the first observation with
    variance 1, as LivePortrait's filter does; the default variances are LivePortrait's for source videos. Raises InputError
    for an empty sequence.
    """
    if sequence.ndim == 0 or sequence.shape[0] == 0:
        raise InputError(f"There is nothing to smooth: the sequence {tuple(sequence.shape)} is empty.")
    observed = sequence.double()
    mean, variance = observed[0], 1.0
    means, variances = [], []
    for t, value in enumerate(observed):  # filter
        predicted = variance + process_variance if t else variance
        gain = predicted / (predicted + observation_variance)
        mean = mean + gain * (value - mean)
        variance = (1 - gain) * predicted
        means.append(mean)
        variances.append(variance)
    smoothed = means[-1:]
    for mean, variance in zip(means[-2::-1], variances[-2::-1]):  # smooth, backwards
        gain = variance / (variance + process_variance)
        smoothed.append(mean + gain * (smoothed[-1] - mean))
    return torch.stack(smoothed[::-1]).to(sequence.dtype)
