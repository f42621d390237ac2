"""Scores of generated images.

The scores themselves need no torch; only the networks that make features and probabilities do, which are chosen by
name in `gan.metrics.extractors`.
"""

from gan.metrics.classes import accuracy, class_divergence, class_shares
from gan.metrics.frechet import feature_diversity, feature_statistics, frechet_distance
from gan.metrics.inception import inception_score
from gan.metrics.neighbours import nearest
from gan.metrics.rounding import significant

__all__ = [
    "accuracy",
    "class_divergence",
    "class_shares",
    "feature_diversity",
    "feature_statistics",
    "frechet_distance",
    "inception_score",
    "nearest",
    "significant",
]
