"""What a classifier's probabilities say of the classes: how often each is drawn, and how often it is right."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy

Shares = NDArray[np.float64]
"""Share of each class, K, summing to 1."""


def accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Share of the images (0 to 1) whose most probable class is their label; N×K probabilities, N labels."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def class_shares(probabilities: NDArray[np.float64]) -> Shares:
    """Share of the images that fall to each class by their most probable one; N×K to K, summing to 1."""
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return counts / len(probabilities)


def class_divergence(samples: Shares, real: Shares) -> float:
    """KL(samples || real) of two lists of class shares, in nats: 0 if they are equal; a missing class costs little.

    This direction stays finite when the samples miss a class, as a collapsed generator's do. It is infinite when
    they hold a class that the real images lack.
    """
    return float(entropy(samples, real))
