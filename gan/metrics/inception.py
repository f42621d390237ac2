"""The Inception Score, of any classifier's probabilities."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy


def inception_score(probabilities: NDArray[np.float64], splits: int) -> tuple[float, float]:
    """Inception Score, exp E[KL(p(y|x) || p(y))], as mean and spread over `splits` contiguous parts of the images.

    Salimans et al. 2016, "Improved Techniques for Training GANs", section 4; the parts and the population standard
    deviation are those of the authors' code. From 1 (all images alike to the classifier) to K (each image certain,
    all classes equally frequent). It grows with the images in a part, so compare only equal counts and splits.

    probabilities: N×K, rows that sum to 1.

    Raises ValueError for another shape, for values that are not probabilities, and for splits outside 1 to N.
    """
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must be N×K, and have shape {probabilities.shape}")
    count = len(probabilities)
    if not 1 <= splits <= count:
        raise ValueError(f"{count} images cannot be cut into {splits} parts")
    if not (np.all(probabilities >= 0) and np.allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-6)):
        raise ValueError("probabilities must be finite, at least 0, and sum to 1 in each row")
    scores = []
    for split in range(splits):
        part = probabilities[split * count // splits : (split + 1) * count // splits]
        divergences = entropy(part, part.mean(axis=0, keepdims=True), axis=1)
        scores.append(np.exp(np.mean(divergences)))
    return float(np.mean(scores)), float(np.std(scores))
