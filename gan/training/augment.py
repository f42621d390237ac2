"""Differentiable augmentation: what the discriminator sees, real and generated alike, is randomly changed.

DiffAugment (Zhao et al. 2020, arXiv 2006.10738, section 3): with few images a discriminator learns them by heart; one
that never sees the same image twice cannot, and the generator, whose gradient passes through the changes, does not
learn to make them. Each function takes and gives images N×C×H×W in [-1, 1] and draws from `stream`, for each image
afresh.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gan.training.processes import Stream

MAX_SHIFT = 1 / 8
"""Largest translation, as a share of the side."""
CUTOUT = 1 / 2
"""Side of the square that cutout blanks, as a share of the image's side."""


def augment(images: Tensor, policy: Sequence[str], stream: Stream) -> Tensor:
    """Images changed by each function that `policy` names, in its order; none: as they are."""
    for name in policy:
        images = AUGMENTATIONS[name](images, stream)
    return images


def colour(images: Tensor, stream: Stream) -> Tensor:
    """Brightness moved by up to 0.5, saturation scaled by 0 to 2, contrast by 0.5 to 1.5; values may leave [-1, 1]."""
    brightness, saturation, contrast = stream.uniform(len(images), 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    changed: Tensor = mean + (images - mean) * (contrast + 0.5)
    return changed


def translation(images: Tensor, stream: Stream) -> Tensor:
    """Moved by up to an eighth of the side, in whole pixels; what comes into view repeats the edge."""
    count, _, height, width = images.shape
    moved = []
    for side in (height, width):
        most = round(side * MAX_SHIFT)
        shift = stream.integers(-most, most + 1, count, 1)
        moved.append((torch.arange(side, device=images.device) + shift).clamp_(0, side - 1))  # N×side
    rows, columns = moved
    each = torch.arange(count, device=images.device)[:, None, None]
    shifted: Tensor = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return shifted


def cutout(images: Tensor, stream: Stream) -> Tensor:
    """A square of half the side, centred anywhere, set to mid-grey."""
    count, _, height, width = images.shape
    inside = []
    for side in (height, width):
        centre = stream.integers(0, side + 1, count, 1)
        distance = torch.arange(side, device=images.device) - centre  # N×side
        half = round(side * CUTOUT) // 2
        inside.append((distance >= -half) & (distance < half))
    rows, columns = inside
    blank = rows[:, None, :, None] & columns[:, None, None, :]  # N×1×H×W
    return images.masked_fill(blank, 0.0)


AUGMENTATIONS: dict[str, Callable[[Tensor, Stream], Tensor]] = {
    "colour": colour,
    "translation": translation,
    "cutout": cutout,
}
