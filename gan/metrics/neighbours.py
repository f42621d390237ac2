"""Nearest real images in pixel space: whether a generator has learned its training images by heart."""

import numpy as np
from numpy.typing import NDArray


def nearest(
    queries: NDArray[np.uint8], images: NDArray[np.uint8], batch: int = 64
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The image nearest to each query by Euclidean distance, the first one where several are equally near.

    queries: Q×H×W×C; images: N×H×W×C, N at least 1, as a memory map if large: of `batch` of them at a time there is a
    copy, 25 MB at 128×128×3.

    Returns the Q indices into `images`, and the Q distances as root mean square differences in grey levels,
    0 to 255.

    Raises ValueError for shapes that do not fit.
    """
    if queries.ndim != 4 or queries.shape[1:] != images.shape[1:] or not len(images):
        raise ValueError(f"queries {queries.shape} and images {images.shape} must be Q×H×W×C and N×H×W×C")
    # In float64 every sum of products of grey levels is a whole number below 2**53: nothing here is rounded.
    flat = queries.reshape(len(queries), -1).astype(np.float64)
    indices = np.zeros(len(queries), np.int64)
    smallest = np.full(len(queries), np.inf)
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch].reshape(-1, flat.shape[1]).astype(np.float64)
        squares = np.einsum("nd,nd->n", chunk, chunk) - 2 * flat @ chunk.T  # Q×batch, without the queries' own
        best = squares.argmin(axis=1)
        values = squares[np.arange(len(queries)), best]
        nearer = values < smallest
        indices[nearer] = start + best[nearer]
        smallest[nearer] = values[nearer]
    squared_distances = smallest + np.einsum("qd,qd->q", flat, flat)
    return indices, np.sqrt(squared_distances / flat.shape[1])
