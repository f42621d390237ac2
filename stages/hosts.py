"""How many devices a stage takes, and on which hosts they are.

`hardware.devices` counts those of all hosts together, so that it alone decides the result. Where they are is the
place's business: on ATELIER_HOSTS hosts (1), of which this one is ATELIER_HOST, counted from 0; they meet at host 0's
ATELIER_RENDEZVOUS, an address and port.
"""

import os
import re
import shutil
from dataclasses import dataclass

from gan.errors import InputError
from gan.params import HardwareParams, Params, check_batch
from stages.slots import DRIVER, visible_devices


@dataclass(frozen=True)
class Hosts:
    """The hosts that train together, and which of them this one is."""

    count: int
    rank: int
    rendezvous: str
    """Where they meet, as address:port; empty for a single one."""


def read_hosts() -> Hosts:
    """What the environment says of hosts. Raises InputError where that makes no sense."""
    count, rank = _number("ATELIER_HOSTS", 1), _number("ATELIER_HOST", 0)
    rendezvous = os.environ.get("ATELIER_RENDEZVOUS", "")
    if count < 1 or rank >= count:
        raise InputError(f"ATELIER_HOST: {rank}, but ATELIER_HOSTS is {count}; hosts are counted from 0")
    if count > 1 and "ATELIER_HOST" not in os.environ:
        raise InputError(f"ATELIER_HOST: not set, but ATELIER_HOSTS is {count}; say which of them this one is, from 0")
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):([0-9]{1,5})", rendezvous)
    if count > 1 and not (found and 0 < int(found[2]) < 1 << 16):
        raise InputError(f"ATELIER_RENDEZVOUS: {rendezvous!r} is not the address:port of host 0, where all hosts meet")
    return Hosts(count, rank, rendezvous if count > 1 else "")


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise InputError(f"{name}: {text!r} is not a whole number")
    return int(text)


def count_devices(hardware: HardwareParams) -> int:
    """What `hardware.devices` comes to: the processes of a training, on all hosts together."""
    if hardware.devices != "auto":
        return hardware.devices
    here = 0 if hardware.device == "cpu" else len(visible_devices())
    return max(1, here) * read_hosts().count


def count_here(hardware: HardwareParams) -> int:
    """How many of them are on this host. Raises InputError where they cannot be spread evenly."""
    count, hosts = count_devices(hardware), read_hosts().count
    if count % hosts:
        raise InputError(f"hardware.devices: {count} cannot be spread evenly over the {hosts} hosts of ATELIER_HOSTS")
    return count // hosts


def check_training(params: Params) -> None:
    """Raise InputError for a training that this machine cannot do, or not sensibly; fine where nothing is trained."""
    if params.sample.generator is not None or params.evaluate.samples is not None:
        return
    hardware = params.hardware
    check_precision(hardware)
    count_here(hardware)
    check_batch(params.train.batch_size, count_devices(hardware))
    named = os.environ.get("CXX") or os.environ.get("CC")
    compilers = [named] if named else ["g++", "gcc", "clang++", "clang"]  # where torch.compile looks
    if hardware.compile and not any(map(shutil.which, compilers)):
        raise InputError("hardware.compile: true, but no C++ compiler is found here; install g++, or use false")


def check_precision(hardware: HardwareParams) -> None:
    """Raise InputError for products that the device has no instructions for.

    For bfloat16, AVX2 has none, and takes a hundred times as long.
    """
    slow = hardware.precision == "bfloat16" and hardware.cpu_isa == "avx2"
    if not (slow or hardware.precision == "tf32"):
        return
    if hardware.device == "cuda" or (hardware.device == "auto" and sees_gpu()):
        return
    if slow:
        raise InputError(
            "hardware.precision: bfloat16, which AVX2 has no instructions for; on CPUs set hardware.cpu_isa=native too"
        )
    raise InputError(
        "hardware.precision: tf32, which is of GPUs, and none is visible here; use float32, or bfloat16 with "
        "hardware.cpu_isa=native"
    )


def sees_gpu() -> bool:
    """Whether there seems to be a GPU here; PyTorch, which has yet to be imported, knows better."""
    return bool(visible_devices()) or DRIVER.exists()  # in some containers a driver is and nvidia-smi is not
