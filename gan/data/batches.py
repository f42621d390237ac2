"""Batches: from packed uint8 images to what networks take, and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.data.packed import Images
from gan.seeds import derive_seed


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order of `count` images, the same for the same seed and epoch, so that any step can be gone back to."""
    stream = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order: NDArray[np.int64] = torch.randperm(count, generator=stream).numpy()
    return order


def to_float(images: Images, device: torch.device) -> Tensor:
    """Images N×H×W×C, uint8, as floats N×C×H×W in [-1, 1] on `device`."""
    batch = torch.from_numpy(images).to(device)
    return batch.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> Images:
    """Floats N×C×H×W in [-1, 1] as images N×H×W×C, uint8; what lies outside is clipped."""
    rounded = images.add(1).mul_(127.5).round_().clamp_(0, 255)
    array: Images = rounded.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array
