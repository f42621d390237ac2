"""The Inception Score, of any classifier's probabilities."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy

BLOCK_ROWS = 4096
"""Images at a time, whose divergences take a few copies of their probabilities: 33 MB each for 1000 classes."""


def inception_score(probabilities: NDArray[np.float64], splits: int) -> tuple[float, float]:
    """Inception Score, exp E[KL(p(y|x) || p(y))], as mean and spread over `splits` contiguous parts of the images.

    Salimans et al. 2016, "Improved Techniques for Training GANs", section 4; the parts and the population standard
    deviation are those of the authors' code. From 1 (all images alike to the classifier) to K (each image certain,
    all classes equally frequent). It grows with the images in a part, so compare only equal counts and splits.

    probabilities: N×K, rows that sum to 1.

    Raises ValueError for another shape, for values that are not probabilities, and for splits outside 1 to N.
    """
    scores = [score for score, _, _ in _parts(probabilities, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def inception_contributions(probabilities: NDArray[np.float64], splits: int) -> NDArray[np.float64]:
    """What each image adds to the Inception Score, N: their mean is the score.

    To first order in the image's weight, with KL the image's divergence and its mean over the image's part: score +
    (score of the part) (KL - mean). The change of the part's marginal p(y) is of no first order.

    Arguments and errors are those of `inception_score`.
    """
    parts = _parts(probabilities, splits)
    value = np.mean([score for score, _, _ in parts])
    contributions = np.full(len(probabilities), value)
    for score, part, divergences in parts:
        share = len(probabilities) / (splits * len(divergences))  # 1, but where some parts hold one image more
        contributions[part] += share * score * (divergences - divergences.mean())
    return contributions


def _parts(probabilities: NDArray[np.float64], splits: int) -> list[tuple[np.float64, slice, NDArray[np.float64]]]:
    """Score, place and images' divergences of each part."""
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must be N×K, and have shape {probabilities.shape}")
    count = len(probabilities)
    if not 1 <= splits <= count:
        raise ValueError(f"{count} images cannot be cut into {splits} parts")
    if not (np.all(probabilities >= 0) and np.allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-6)):
        raise ValueError("probabilities must be finite, at least 0, and sum to 1 in each row")
    parts = []
    for split in range(splits):
        place = slice(split * count // splits, (split + 1) * count // splits)
        part = probabilities[place]
        marginal = part.mean(axis=0, keepdims=True)
        blocks = (part[start : start + BLOCK_ROWS] for start in range(0, len(part), BLOCK_ROWS))
        divergences = np.concatenate([entropy(block, marginal, axis=1) for block in blocks])
        parts.append((np.exp(np.mean(divergences)), place, divergences))
    return parts
