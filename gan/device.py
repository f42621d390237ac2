"""Which device computes, with how many threads, and how exactly."""

import torch

from gan.errors import InputError


def open_device(name: str, threads: int, deterministic: bool, *, tf32: bool = False, number: int = 0) -> torch.device:
    """Set this process's threads and algorithms, and return the device: of several GPUs that with `number`.

    `name` is `auto` (a GPU where there is one), `cpu` or `cuda`; `tf32` lets its products have factors of 10 bits.
    Raises InputError for `cuda` or `tf32` without a GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("hardware.device: cuda, but PyTorch finds no GPU here; use auto or cpu")
    if tf32 and (name == "cpu" or not torch.cuda.is_available()):
        raise InputError("hardware.precision: tf32, which is of GPUs, and this runs on a CPU; use float32 or bfloat16")
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.use_deterministic_algorithms(deterministic)
    # Nothing reads memory before it is written, and to fill it all the same takes a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if number >= torch.cuda.device_count():
        raise InputError(
            f"hardware.devices: PyTorch finds {torch.cuda.device_count()} GPUs here (of one that is split, a process "
            "has one part at most); ask for no more"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
