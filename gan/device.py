"""Which device computes, with how many threads, and how exactly."""

import torch

from gan.errors import InputError


def open_device(name: str, threads: int, deterministic: bool) -> torch.device:
    """Set this process's threads and algorithms, and return the device.

    `name` is `auto` (a GPU where there is one), `cpu` or `cuda`. Raises InputError for `cuda` without a GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("hardware.device: cuda, but PyTorch finds no GPU here; use auto or cpu")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
