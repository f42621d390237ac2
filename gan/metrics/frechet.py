"""The Fréchet distance between two sets of features, each taken as a Gaussian."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, svdvals

Vector = NDArray[np.float64]
"""D."""
Matrix = NDArray[np.float64]
"""D×D, symmetric."""


def feature_statistics(features: NDArray[np.floating]) -> tuple[Vector, Matrix]:
    """Mean (D) and unbiased covariance (D×D) of N×D features, in float64.

    Raises ValueError for another shape and for fewer than two rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be N×D with N at least 2, and have shape {features.shape}")
    centred = features.astype(np.float64)
    mean = centred.mean(axis=0)
    centred -= mean  # in place: hundreds of thousands of features are as large as the memory of small machines
    return mean, centred.T @ centred / (len(centred) - 1)


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

    tr (S1 S2)^½ is the sum of the singular values of S1^½ S2^½, whose squares are the eigenvalues of
    S1^½ S2 S1^½. Both roots come from symmetric eigenvalues, so nothing can turn imaginary, and covariances of
    fewer images than features are as good as any.

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
    shared = float(np.sum(svdvals(_square_root(cov1) @ _square_root(cov2))))
    # The distance of nearly equal Gaussians is a difference of large numbers, and may come out as -1e-13.
    return max(0.0, between + float(np.trace(cov1)) + float(np.trace(cov2)) - 2 * shared)


def _square_root(matrix: Matrix) -> Matrix:
    values, vectors = eigh(matrix)
    # An eigenvalue that is zero comes out as ±1e-16 of the largest, and its root as 1e-8, which would be felt.
    noise = np.abs(values).max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    roots = np.sqrt(np.where(values > noise, values, 0.0))
    root: Matrix = (vectors * roots) @ vectors.T
    return root
