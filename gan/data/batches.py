"""Batches: from packed uint8 images to what networks take, and back."""

from collections.abc import Iterator

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
    return scale_to_float(torch.from_numpy(images).to(device).permute(0, 3, 1, 2))


def scale_to_float(images: Tensor) -> Tensor:
    """Images of uint8 as floats in [-1, 1], in the same layout and place."""
    return images.float().div_(127.5).sub_(1)


def to_bytes(images: Tensor) -> Tensor:
    """Floats in [-1, 1] as uint8, 0 to 255, in the same layout and place; what lies outside is clipped."""
    return images.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_packed(images: Tensor) -> Images:
    """Images N×C×H×W, uint8, as the packed image set has them: N×H×W×C in memory."""
    array: Images = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def packed_batches(images: Images, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Batches N×C×H×W, uint8 on `device`, of packed images N×H×W×C, a memory map if they are large, in their order."""
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.array(images[start : start + batch_size]))  # torch takes no read-only memory
        yield batch.to(device).permute(0, 3, 1, 2)
