"""Scores of generated images.

The scores themselves need no torch; only the networks that make features and probabilities do, which are chosen by
name in `gan.metrics.extractors`.
"""

from gan.metrics.bootstrap import interval
from gan.metrics.classes import accuracy, class_divergence, class_shares
from gan.metrics.copies import NearCopies, near_copies
from gan.metrics.frechet import feature_diversity, feature_statistics, frechet_contributions, frechet_distance
from gan.metrics.inception import inception_contributions, inception_score
from gan.metrics.kernel import KernelDistance, kernel_distance, maximum_mean_discrepancy
from gan.metrics.manifold import ManifoldScores, manifold_scores, neighbourhood_radii
from gan.metrics.neighbours import nearest
from gan.metrics.rounding import significant
from gan.metrics.scores import score, score_names

__all__ = [
    "KernelDistance",
    "ManifoldScores",
    "NearCopies",
    "accuracy",
    "class_divergence",
    "class_shares",
    "feature_diversity",
    "feature_statistics",
    "frechet_contributions",
    "frechet_distance",
    "inception_contributions",
    "inception_score",
    "interval",
    "kernel_distance",
    "manifold_scores",
    "maximum_mean_discrepancy",
    "near_copies",
    "nearest",
    "neighbourhood_radii",
    "score",
    "score_names",
    "significant",
]
