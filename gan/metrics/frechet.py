"""The Fréchet distance between two sets of features, each taken as a Gaussian."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, svdvals
from scipy.linalg.lapack import dpstrf

from gan.metrics.neighbours import blocks

Vector = NDArray[np.float64]
"""D."""
Matrix = NDArray[np.float64]
"""D×D, symmetric."""


def feature_statistics(features: NDArray[np.floating]) -> tuple[Vector, Matrix]:
    """Mean (D) and unbiased covariance (D×D) of N×D features, in float64.

    The features may be a memory map: of a block at a time there is a copy.

    Raises ValueError for another shape, for fewer than two rows and for features that are not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be N×D with N at least 2, and have shape {features.shape}")
    total = np.zeros(features.shape[1])
    for block in blocks(features):
        total += block.rows.sum(axis=0)
    mean = total / len(features)
    squares = np.zeros((len(mean), len(mean)))
    for block in blocks(features):
        centred = block.rows - mean
        squares += centred.T @ centred
    return mean, squares / (len(features) - 1)


def feature_diversity(samples: Matrix, real: Matrix) -> float:
    """How widely samples spread beside real images: sqrt(tr S / tr R) of their features' covariances, D×D.

    About 1 if they are as varied, 0 if they are all the same. Raises ValueError for real images that are.
    """
    spread = float(np.trace(real))
    if spread <= 0:
        raise ValueError("the real images have no spread to compare with")
    return math.sqrt(max(0.0, float(np.trace(samples))) / spread)


def frechet_distance(mean1: Vector, cov1: Matrix, mean2: Vector, cov2: Matrix) -> float:
    """Fréchet distance |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) between two Gaussians; 0 if they are the same.

    Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6. It is called FID only when the
    features are those of one Inception network. Estimated from N images it is too large by a term in D²/N, so
    compare only equal counts.

    tr (S1 S2)^½ is the sum of the singular values of A1ᵀ A2 for any factors with S = A Aᵀ: their squares are the
    eigenvalues of S1 S2. Singular values are never imaginary, and with a pivoted Cholesky factorisation, which stops
    at the rank, covariances of fewer images than features are as good as any.

    means: D; covariances: D×D, symmetric, positive semi-definite up to round-off.

    Raises ValueError for shapes that do not fit and for values that are not finite.
    """
    size = len(mean1) if mean1.ndim == 1 else -1
    for name, array, shape in (
        ("mean1", mean1, (size,)),
        ("cov1", cov1, (size, size)),
        ("mean2", mean2, (size,)),
        ("cov2", cov2, (size, size)),
    ):
        if array.shape != shape:
            raise ValueError(
                f"means must be D and covariances D×D with one D; mean1 is {mean1.shape}, {name} {array.shape}"
            )
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} holds values that are not finite")
    between = float(np.sum((mean1 - mean2) ** 2))
    shared = float(np.sum(svdvals(_factor(cov1).T @ _factor(cov2))))
    # The distance of nearly equal Gaussians is a difference of large numbers, and may come out as -1e-13.
    return max(0.0, between + float(np.trace(cov1)) + float(np.trace(cov2)) - 2 * shared)


def frechet_contributions(features: NDArray[np.floating], real_mean: Vector, real_cov: Matrix) -> Vector:
    """What each image adds to the Fréchet distance of its set from real images, N: their mean is the distance.

    To first order in the image's weight, with m1 and S1 of the features, m2 and S2 of the real images, and
    T = S2^½ (S2^½ S1 S2^½)^-½ S2^½, which carries the one Gaussian to the other: distance + c' (I - T) c, less its
    mean, + 2 (m1 - m2)' c for an image at c = x - m1. With fewer images than features the inverse is taken where
    there is anything to invert.

    Measured on independent draws, the spread is right within a few per cent where images outnumber features twenty
    times. With fewer, down to two times, it is from 20% too small, where the samples vary less than the real images,
    to 20% too large; where the two distributions are the same, up to √2 times too large.

    features: N×D, N at least 2, as a memory map if large; real_mean: D; real_cov: D×D.

    Raises ValueError as `feature_statistics` and `frechet_distance` do.
    """
    mean, cov = feature_statistics(features)
    value = frechet_distance(mean, cov, real_mean, real_cov)
    factor = _factor(real_cov)
    squares, vectors = eigh(factor.T @ cov @ factor)
    kept = squares > _noise(squares)
    # A column a of these has part (a·c)² in c' T c.
    columns = factor @ (vectors[:, kept] / squares[kept] ** 0.25)
    influences = np.zeros(len(features))
    for block in blocks(features):
        centred = block.rows - mean
        carried = centred @ columns
        spread = np.einsum("nd,nd->n", centred, centred) - np.einsum("nd,nd->n", carried, carried)
        influences[block.span] = spread + 2 * centred @ (mean - real_mean)
    influences += value - influences.mean()
    return influences


def _noise(values: Vector) -> float:
    """What round-off leaves of an eigenvalue, or of a diagonal element of a factorisation, that is zero."""
    return float(np.abs(values).max(initial=0.0)) * len(values) * float(np.finfo(np.float64).eps)


def _factor(matrix: Matrix) -> Matrix:
    """A of the matrix's rank, D×R, with A Aᵀ the matrix, positive semi-definite up to round-off."""
    lower, order, rank, _ = dpstrf(matrix, tol=_noise(np.diag(matrix)), lower=1)
    factor = np.zeros((len(matrix), rank))
    factor[order - 1] = np.tril(lower)[:, :rank]  # LAPACK counts from 1
    return factor
