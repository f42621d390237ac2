"""Nearest images by Euclidean distance, in pixels or in features: exact search, in blocks that bound the memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 64_000_000
"""Size of a block of images in float64, at most, if it holds more than one."""
BLOCK_ROWS = 2048
"""Images in a block, at most: the distances of two blocks take 34 MB."""
ROUND_OFF = 1e-13
"""Squared distances below this part of the two squared lengths are round-off, and count as none: copies stay copies."""


@dataclass(frozen=True)
class Block:
    """Consecutive images, flattened."""

    start: int
    """Index of the first."""
    rows: NDArray[np.float64]
    """B×D."""
    squares: NDArray[np.float64]
    """Squared lengths of the rows, B."""

    @property
    def span(self) -> slice:
        """The images' place among all."""
        return slice(self.start, self.start + len(self.rows))


def blocks(images: NDArray[np.number], start: int = 0) -> Iterator[Block]:
    """The images from index `start` on, in order; N×D or N×H×W×C of any real type, as a memory map if large.

    Raises ValueError for values that are not finite.
    """
    size = int(np.prod(images.shape[1:]))
    step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (8 * max(1, size))))
    for first in range(start, len(images), step):
        part = images[first : first + step]
        rows = part.reshape(len(part), size).astype(np.float64)
        if not np.all(np.isfinite(rows)):
            index = first + int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise ValueError(f"image {index} of {len(images)} has values that are not finite")
        yield Block(first, rows, np.einsum("nd,nd->n", rows, rows))


def squared_distances(first: Block, second: Block) -> NDArray[np.float64]:
    """Squared Euclidean distances, A×B, at least 0.

    Of whole numbers, such as grey levels, no distance is rounded: every sum of products is far below 2**53.
    """
    distances = first.rows @ second.rows.T
    distances *= -2
    distances += first.squares[:, None]
    distances += second.squares
    near = np.nonzero(distances <= ROUND_OFF * (first.squares.max() + second.squares.max()))
    noise = ROUND_OFF * (first.squares[near[0]] + second.squares[near[1]])
    distances[near] = np.where(distances[near] <= noise, 0.0, distances[near])
    return distances


def nearest(queries: NDArray[np.number], images: NDArray[np.number]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The image nearest to each query by Euclidean distance, the first one where several are equally near.

    queries: Q×D or Q×H×W×C; images: N×D or N×H×W×C, N at least 1. Both of any real type, as memory maps if large.

    Returns the Q indices into `images`, and the Q distances: in pixels, divide them by √(HWC) for root mean square
    differences in grey levels.

    Raises ValueError for shapes that do not fit and for values that are not finite.
    """
    if queries.ndim < 2 or queries.shape[1:] != images.shape[1:] or not len(images):
        raise ValueError(
            f"queries and images must be Q×D and N×D, or Q×H×W×C and N×H×W×C, with N at least 1; "
            f"they are {queries.shape} and {images.shape}"
        )
    indices = np.zeros(len(queries), np.int64)
    smallest = np.full(len(queries), np.inf)
    for query in blocks(queries):
        for block in blocks(images):
            distances = squared_distances(query, block)
            best = distances.argmin(axis=1)
            values = distances[np.arange(len(best)), best]
            nearer = values < smallest[query.span]
            indices[query.span][nearer] = block.start + best[nearer]
            smallest[query.span][nearer] = values[nearer]
    return indices, np.sqrt(smallest)
