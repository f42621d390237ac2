"""Batches: from packed uint8 images to what networks take, and back."""

import errno
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.data.packed import Images
from gan.seeds import derive_seed

AHEAD = 4
"""Batches that wait while a step computes. With the one that is read and the one in use, six are in memory at most."""
RESIDENT_BYTES = 2**28
"""Largest split that is held in the main memory, where it computes; a larger one is read as it is needed."""
RESIDENT_SHARE = 0.25
"""Of a GPU's free memory: what a split may take that is held there."""
COPIED_BYTES = 2**24
"""What of a split is brought to a device at a time, at most, unless a single image is larger."""

Reader = Callable[[Sequence[int], NDArray[np.uint8]], None]
"""Copies the images at some places into an array as long, N×H×W×C."""


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


@contextmanager
def training_batches(
    images: Images,
    order_of_epoch: Callable[[int], NDArray[np.int64]],
    start: int,
    batch_size: int,
    device: torch.device,
    part: slice = slice(None),
) -> Iterator[Iterator[Tensor]]:
    """Yield the batches of training from step `start` on, without end: N×H×W×C, uint8, on `device`.

    images: N×H×W×C, as `read_images` gives them, at least one batch.
    order_of_epoch: the order of all images in an epoch; those beyond its last whole batch are left out.
    start: the first step, counted from 0 over all epochs; from any of them on, the batches are the same.
    part: what this process takes of each batch, where several share it.

    A split of up to `RESIDENT_BYTES`, or on a GPU of up to `RESIDENT_SHARE` of its free memory, is held on the device.
    Of a larger one, a thread reads the next `AHEAD` batches while the steps compute; it ends with the block. The
    batches are the same either way. An OSError of a file that cannot be read comes with the first batch that needs it.
    """
    resident = images.nbytes <= _resident_bytes(device)
    steps_per_epoch = len(images) // batch_size
    ordered_epoch, order = -1, torch.empty(0, dtype=torch.int64)

    def places(step: int) -> Tensor:
        nonlocal ordered_epoch, order
        epoch, position = divmod(step, steps_per_epoch)
        if epoch != ordered_epoch:
            order = torch.empty(0, dtype=torch.int64)  # two orders of a large set would take much memory
            ordered_epoch, order = epoch, torch.from_numpy(order_of_epoch(epoch)).to(device if resident else "cpu")
        return order[position * batch_size : (position + 1) * batch_size][part]

    with _opened(images) as read:
        if resident:
            held = _hold(images, read, device)
            yield (_gather(held, places(step)) for step in count(start))
            return

        def load(step: int) -> Tensor:
            indices = places(step).tolist()
            shape = (len(indices), *images.shape[1:])
            batch = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
            read(indices, batch.numpy())
            return batch

        thread = ThreadPoolExecutor(1, "batches")  # a single one, so that steps are read in their order
        try:
            yield (batch.to(device, non_blocking=True) for batch in _ahead(thread, load, start))
        finally:
            thread.shutdown(cancel_futures=True)


def _ahead(thread: ThreadPoolExecutor, load: Callable[[int], Tensor], start: int) -> Iterator[Tensor]:
    pending: deque[Future[Tensor]] = deque()
    for step in count(start):
        pending.append(thread.submit(load, step))
        if len(pending) > AHEAD:
            yield pending.popleft().result()


def _resident_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
    return RESIDENT_BYTES


def _hold(images: Images, read: Reader, device: torch.device) -> Tensor:
    """All images on `device`."""
    held = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, COPIED_BYTES // images[0].nbytes)
    for start in range(0, len(images), step):
        places = range(start, min(start + step, len(images)))
        piece = np.empty((len(places), *images.shape[1:]), np.uint8)
        read(places, piece)
        held[start : places.stop].copy_(torch.from_numpy(piece))
    return held


def _gather(images: Tensor, places: Tensor) -> Tensor:
    if images.is_cuda:
        return images.index_select(0, places)
    # On busy cores, PyTorch's threads wait for each other a thousand times as long as the copy takes.
    return torch.from_numpy(images.numpy()[places.numpy()])


@contextmanager
def _opened(images: Images) -> Iterator[Reader]:
    """What reads images by their places: from the file itself, where they are the memory map of one.

    Through the map, the system reads one image at a time with megabytes around it, of which a random order needs none,
    and a disk's error ends the process by a signal. Of the file, all of a batch is asked for before any of it is
    waited for, and an error is an OSError. Nothing that was read counts as this process's memory.
    """
    if not (isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap)):  # a part of a map has another base

        def take(places: Sequence[int], out: NDArray[np.uint8]) -> None:
            out[:] = images[places]

        yield take
        return

    path, first, size = Path(str(images.filename)), images.offset, images[0].nbytes
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

        def read(places: Sequence[int], out: NDArray[np.uint8]) -> None:
            try:
                for place in places:
                    os.posix_fadvise(file.fileno(), first + place * size, size, os.POSIX_FADV_WILLNEED)
                for place, image in zip(places, out, strict=True):
                    if os.preadv(file.fileno(), [image], first + place * size) != size:
                        raise OSError(errno.EIO, "it is shorter than it was")
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error

        yield read
