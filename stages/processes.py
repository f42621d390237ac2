"""Runs a training in several processes, one a device, on this host or on several, by torchrun's own agent.

Import nothing heavy here.
"""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from gan.errors import InputError, one_line
from gan.params import Params, check_params
from stages.arithmetic import hold_arithmetic
from stages.hosts import Hosts, count_here, read_hosts
from stages.stage import MemberKilledError, end_with_parent, told_in_words

LOST = 75
"""The exit status of a process that does not reach the others any more."""
MEETING_SECONDS = 86_400.0
"""So long hosts wait for each other: each may have other stages to run before."""
ANSWER = timedelta(minutes=30)
"""So long a process waits for the others in a step, as while the first one writes a checkpoint to a slow disk."""
AGENT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def run_together(params: Params, module: str, *arguments: str, folder: Path | None) -> None:
    """Run `module` in as many processes as `params.hardware` asks for, each of which calls `run_member`, and wait.

    One that fails ends all the others. `folder` holds what they share while they run; None: the system's. Raises
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
        configs: dict[str, Any] = {"rank": hosts.rank, "timeout": MEETING_SECONDS}
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
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            exits = {rank: failure.exitcode for rank, failure in error.failures.items()}
            lost = [failure.message for failure in error.failures.values() if failure.exitcode == LOST]
            said = _explain(exits, lost, hosts)
        except (DistError, RendezvousError) as error:
            said = InputError(
                f"ATELIER_RENDEZVOUS: the hosts do not meet at {hosts.rendezvous or 'this host'}: "
                f"{_short(str(error))}; it must be an address of host 0, with a port that is free there and "
                "that the others reach"
            )
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)
        else:
            return
    if said is None:
        sys.exit(1)
    raise said


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
