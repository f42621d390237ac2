"""How many processes there are, and where."""

from typing import Any

import pytest

from gan.errors import InputError
from gan.params import HardwareParams
from stages import hosts
from stages.hosts import Hosts, check_precision, count_devices, count_here, read_hosts

HARDWARE: dict[str, Any] = {"device": "auto", "threads": 1, "cpu_isa": "avx2", "precision": "float32", "compile": False}


def hardware(devices: int | str, device: str = "auto") -> HardwareParams:
    return HardwareParams(**HARDWARE | {"devices": devices, "device": device, "deterministic": True})


@pytest.fixture(autouse=True)
def _place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ATELIER_HOSTS", "ATELIER_HOST", "ATELIER_RENDEZVOUS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hosts, "visible_devices", lambda: ["GPU-a", "GPU-b", "GPU-c"])


def test_one_host_is_enough() -> None:
    assert read_hosts() == Hosts(1, 0, "")


def test_auto_is_all_gpus_of_all_hosts_and_one_process_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_devices(hardware("auto")) == 3
    assert count_devices(hardware("auto", "cpu")) == 1
    assert count_devices(hardware(2)) == 2
    monkeypatch.setenv("ATELIER_HOSTS", "2")
    monkeypatch.setenv("ATELIER_HOST", "0")
    monkeypatch.setenv("ATELIER_RENDEZVOUS", "box-1.example.org:29400")
    assert (count_devices(hardware("auto")), count_here(hardware("auto"))) == (6, 3)
    assert (count_devices(hardware(4)), count_here(hardware(4))) == (4, 2)
    with pytest.raises(InputError, match=r"^hardware.devices: 3 cannot be spread evenly over the 2 hosts"):
        count_here(hardware(3))


def test_without_gpus_auto_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "visible_devices", list)
    assert count_devices(hardware("auto")) == 1


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"ATELIER_HOSTS": "two"}, r"^ATELIER_HOSTS: 'two' is not a whole number$"),
        ({"ATELIER_HOSTS": "0"}, r"^ATELIER_HOST: 0, but ATELIER_HOSTS is 0"),
        ({"ATELIER_HOSTS": "2", "ATELIER_HOST": "2"}, r"^ATELIER_HOST: 2, but ATELIER_HOSTS is 2; .* from 0$"),
        (
            {"ATELIER_HOSTS": "2"},
            r"^ATELIER_HOST: not set, but ATELIER_HOSTS is 2; say which of them this one is, from 0$",
        ),
        ({"ATELIER_HOSTS": "2", "ATELIER_HOST": "0"}, r"^ATELIER_RENDEZVOUS: '' is not the address:port of host 0"),
        (
            {"ATELIER_HOSTS": "2", "ATELIER_HOST": "0", "ATELIER_RENDEZVOUS": "box"},
            r"^ATELIER_RENDEZVOUS: 'box' is not the address:port",
        ),
        (
            {"ATELIER_HOSTS": "2", "ATELIER_HOST": "0", "ATELIER_RENDEZVOUS": "box:65536"},
            r"^ATELIER_RENDEZVOUS: 'box:65536' is not the address:port",
        ),
        (
            {"ATELIER_HOSTS": "2", "ATELIER_HOST": "1", "ATELIER_RENDEZVOUS": "$(x):1"},
            r"^ATELIER_RENDEZVOUS: '\$\(x\):1' is not",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    environment: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=line):
        read_hosts()


@pytest.mark.parametrize("address", ["10.0.0.1:29400", "[fe80::1]:29400", "box:1"])
def test_hosts_meet_at_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ATELIER_HOSTS", "2"), ("ATELIER_HOST", "1"), ("ATELIER_RENDEZVOUS", address)):
        monkeypatch.setenv(name, value)
    assert read_hosts() == Hosts(2, 1, address)


def test_bfloat16_needs_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    low = hardware(1).model_copy(update={"precision": "bfloat16"})
    check_precision(low)  # on a GPU
    check_precision(hardware(1, "cpu"))
    with pytest.raises(
        InputError,
        match=r"^hardware.precision: bfloat16, which AVX2 has no instructions for; .* hardware.cpu_isa=native too$",
    ):
        check_precision(low.model_copy(update={"device": "cpu"}))
    monkeypatch.setattr(hosts, "visible_devices", list)
    with pytest.raises(InputError, match=r"^hardware.precision: bfloat16"):
        check_precision(low)
    check_precision(low.model_copy(update={"cpu_isa": "native"}))


def test_tf32_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    precise = hardware(1).model_copy(update={"precision": "tf32"})
    check_precision(precise)
    monkeypatch.setattr(hosts, "visible_devices", list)
    with pytest.raises(InputError, match=r"^hardware.precision: tf32, which is of GPUs, and none is visible here"):
        check_precision(precise)
    check_precision(precise.model_copy(update={"device": "cuda"}))  # PyTorch knows better
