"""Runs a training in several processes, one a device, on this host or on several, by torchrun's own agent.

Import nothing heavy here.
"""

import json
import logging
import math
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gan.errors import InputError, one_line
from gan.params import Params, check_params
from stages.arithmetic import hold_arithmetic
from stages.hosts import Hosts, count_here, read_hosts
from stages.slots import POLL_SECONDS, REMIND_SECONDS
from stages.stage import MemberKilledError, end_with_parent, told_in_words

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

log = logging.getLogger(__name__)

LOST = 75
"""The exit status of a process that does not reach the others any more."""
MEETING_SECONDS = 86_400.0
"""So long hosts wait for each other: each may have other stages to run before."""
ANSWER = timedelta(minutes=30)
"""So long a process waits for the others in a step, as while the first one writes a checkpoint to a slow disk."""
BEAT_SECONDS = 5.0
"""A host that waits says so ten times as often."""
ALL_THERE = "none"
AGENT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run_together(params: Params, module: str, *arguments: str, folder: Path) -> None:
    """Run `module` in as many processes as `params.hardware` asks for, each of which calls `run_member`, and wait.

    One that fails ends all the others. `folder` holds what they share while they run. Raises
    MemberKilledError where one was killed, and InputError where they do not reach each other; exits where one has said
    what was wrong.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    hosts, here = read_hosts(), count_here(params.hardware)
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are told below
    with tempfile.TemporaryDirectory(prefix="together-", dir=folder) as shared, _own_signals():
        where = "env://"
        backend, endpoint = "static", hosts.rendezvous
        configs: dict[str, Any] = {"rank": hosts.rank, "timeout": ANSWER.total_seconds()}
        if hosts.count == 1:  # they meet in files, and talk through the loopback device, which no other host reaches
            where = f"file://{Path(shared).absolute()}/store"
            backend, endpoint, configs = "c10d", f"{shared}/rendezvous", {"store_type": "file"}
            os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        config = LaunchConfig(
            min_nodes=hosts.count,
            max_nodes=hosts.count,
            nproc_per_node=here,
            run_id="atelier",
            rdzv_backend=backend,
            rdzv_endpoint=endpoint,
            rdzv_configs=configs,
            max_restarts=0,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=shared),
        )
        command = ("-m", module, str(os.getpid()), params.model_dump_json(), where, *arguments)
        if sys.flags.utf8_mode:
            os.environ["PYTHONUTF8"] = "1"
        try:
            _store = meet(hosts) if hosts.count > 1 else None  # host 0 keeps it: the agent goes on in the same one
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            exits = {rank: failure.exitcode for rank, failure in error.failures.items()}
            lost = [failure.message for failure in error.failures.values() if failure.exitcode == LOST]
            said = _explain(exits, lost, hosts)
        except (DistError, RendezvousError) as error:
            said = _no_meeting(hosts, str(error))
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)
        else:
            return
    if said is None:
        sys.exit(1)
    raise said


def meet(hosts: Hosts) -> "TCPStore":
    """Wait until all hosts are there, and say so; returns the store that host 0 has opened for them.

    PyTorch's own rendezvous waits too, but heeds no Ctrl-C meanwhile, and speaks of its failures alone. Raises
    InputError or DistError where the address leads nowhere, or on host 0 not to this host and a port that is free, and
    InputError where the others have not come within a day.
    """
    looks = _ask_who_is_absent(hosts)
    try:
        socket.getaddrinfo(*_address(hosts))
        if hosts.rank == 0:
            looks = _count_present(_open_store("localhost", hosts), hosts)
            _call(hosts)
    except (OSError, UnicodeError) as error:  # the second of a name with a part that is empty or too long
        raise _no_meeting(hosts, str(error)) from None
    began = next_line = time.monotonic()
    said = ""
    while True:
        store, absent = next(looks)
        if store and not absent:
            return store
        now = time.monotonic()
        if now > began + MEETING_SECONDS:
            raise _no_meeting(hosts, f"not there: {absent}")
        if now >= next_line or absent != said:
            log.info("waiting for the other hosts at %s; not there yet: %s", hosts.rendezvous, absent)
            next_line, said = now + REMIND_SECONDS, absent
        time.sleep(POLL_SECONDS)


Looks = Iterator["tuple[TCPStore | None, str]"]
"""Each time anew: the store, as far as it can be reached, and who is absent."""


def _count_present(store: "TCPStore", hosts: Hosts) -> Looks:
    """Who is absent, by host 0, which alone decides and tells the others.

    A host is there as long as it counts on: one that waited and was ended is not.
    """
    beats: dict[int, tuple[int, float]] = {}  # what each has counted to, and since when
    while True:
        now = time.monotonic()
        for rank in range(1, hosts.count):
            beat = store.add(f"host {rank}", 0)
            if beat != beats.get(rank, (0, 0))[0]:
                beats[rank] = beat, now
        late = [rank for rank in range(1, hosts.count) if now > beats.get(rank, (0, -math.inf))[1] + BEAT_SECONDS]
        absent = ", ".join(map(str, late))
        store.set("absent", absent or ALL_THERE)
        yield store, absent


def _ask_who_is_absent(hosts: Hosts) -> Looks:
    """Who is absent, by the others: they count on, and ask host 0, as soon and as long as it has the store open."""
    from torch.distributed import DistError

    store = None
    while True:
        try:
            if store is None:
                _call(hosts)  # PyTorch would be loud where nobody answers
                store = _open_store(_address(hosts)[0], hosts)
            store.add(f"host {hosts.rank}", 1)
            absent = store.get("absent").decode() if store.check(["absent"]) else "0"
        except (OSError, DistError) as error:
            store, absent = None, f"0 ({_short(str(error))})"
        yield store, "" if absent == ALL_THERE else absent


def _open_store(host: str, hosts: Hosts) -> "TCPStore":
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # In one process, stores at the same port are one, and the agent's is the next.
    return TCPStore(host, _address(hosts)[1], None, hosts.rank == 0, ANSWER, wait_for_workers=False, multi_tenant=True)


def _call(hosts: Hosts) -> None:
    socket.create_connection(_address(hosts), 1).close()


def _address(hosts: Hosts) -> tuple[str, int]:
    address, port = hosts.rendezvous.rsplit(":", 1)
    return address.strip("[]"), int(port)


def _no_meeting(hosts: Hosts, why: str) -> InputError:
    return InputError(
        f"ATELIER_RENDEZVOUS: the hosts do not meet at {hosts.rendezvous or 'this host'}: {_short(why)}; it must be an "
        "address of host 0, with a port that is free there and that the others reach"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Give this process its handlers of signals back at the end of the block, in which the agent has its own."""
    handlers = {number: signal.getsignal(number) for number in AGENT_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _explain(exits: Mapping[int, int], lost: list[str], hosts: Hosts) -> InputError | None:
    """Why processes have ended, by their ranks' exit statuses; None where one has said it.

    lost: what those said that no longer reached the others. The agent ends by SIGTERM who is left; and on several hosts
    NCCL ends by SIGABRT who waits for one that has gone.
    """
    if any(code > 0 and code != LOST for code in exits.values()):
        return None
    again = "dvc repro goes on from the last checkpoint"
    aftermath = {signal.SIGTERM, signal.SIGABRT} if hosts.count > 1 else {signal.SIGTERM}
    killed = {rank: -code for rank, code in exits.items() if code < 0}
    causes = {rank: number for rank, number in killed.items() if number not in aftermath}
    if not causes and (lost or hosts.count > 1):
        elsewhere = "a process on another host has ended, which says why there" if hosts.count > 1 else ""
        return InputError(f"{elsewhere or _short(lost[0])}; {again}")
    rank, number = min((causes or killed).items())
    name = signal.Signals(number).name
    return MemberKilledError(
        f"process {rank} of the training was ended by {name}, and the others with it; {again}", number
    )


def _short(text: str) -> str:
    return one_line(" ".join(text.split()), 300)


def run_member(name: str, work: Callable[..., None]) -> NoReturn:
    """Be one of the processes that `run_together` starts for the stage `name`: join the others, work, and exit.

    `work` is called with the parameters, this process's device, and the arguments.
    """
    parent, parameters, store, *arguments = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the stage says that it was interrupted, and once is enough
    end_with_parent(int(parent))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with told_in_words(name):
            _work_with_others(check_params(json.loads(parameters)), store, work, arguments)
    except SystemExit as error:
        # At once: until this process is gone, the others and the agent take its end for something else.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(error.code or 0))
    sys.exit(0)


def _work_with_others(params: Params, store: str, work: Callable[..., None], arguments: list[str]) -> None:
    hardware = params.hardware
    hold_arithmetic(hardware)

    import torch.distributed as dist

    from gan.device import open_device
    from gan.training.processes import SeveredError

    rank, count, here = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    tf32 = hardware.precision == "tf32"
    device = open_device(hardware.device, hardware.threads, hardware.deterministic, tf32=tf32, number=here)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, init_method=store, rank=rank, world_size=count, timeout=ANSWER)
        work(params, device, *arguments)
    except (SeveredError, dist.DistError) as error:
        told = json.dumps({"message": str(error), "timestamp": 0})
        Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(told)
        sys.exit(LOST)
    dist.destroy_process_group()
