"""Runs a training in several processes, one a device, on this host or on several, by torchrun's own agent.

Import nothing heavy here.
"""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NoReturn

from gan.errors import InputError
from gan.params import Params, check_params
from stages.arithmetic import hold_arithmetic
from stages.hosts import Hosts, count_here, read_hosts
from stages.stage import end_with_parent, told_in_words

LOST = 75
"""The exit status of a process that cannot go on because another has ended."""
RENDEZVOUS_SECONDS = 600.0
"""So long hosts wait for each other."""


def run_together(params: Params, module: str, *arguments: str) -> None:
    """Run `module` in as many processes as `params.hardware` asks for, each of which calls `run_member`, and wait.

    One that fails ends all the others. Raises InputError where one was killed, and exits
    where one has said what was wrong.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    hosts, here = read_hosts(), count_here(params.hardware)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # failures are told below
    with tempfile.TemporaryDirectory(prefix="atelier-") as folder:
        where = "env://"
        backend, endpoint = "static", hosts.rendezvous
        configs: dict[str, Any] = {"rank": hosts.rank, "timeout": RENDEZVOUS_SECONDS}
        if hosts.count == 1:  # they meet in files, and talk through the loopback device, which no other host reaches
            where = f"file://{folder}/store"
            backend, endpoint, configs = "c10d", f"{folder}/rendezvous", {"store_type": "file"}
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
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        command = ("-m", module, str(os.getpid()), params.model_dump_json(), where, *arguments)
        if sys.flags.utf8_mode:
            os.environ["PYTHONUTF8"] = "1"
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            _tell({rank: failure.exitcode for rank, failure in error.failures.items()}, hosts)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)


def _tell(exits: dict[int, int], hosts: Hosts) -> NoReturn:
    """Say why processes have ended, by their exit statuses; the agent ends the others by SIGTERM."""
    if any(code > 0 and code != LOST for code in exits.values()):
        sys.exit(1)  # it has said why
    killed = {rank: -code for rank, code in exits.items() if code < 0}
    first = {rank: code for rank, code in killed.items() if code != signal.SIGTERM} or killed
    if LOST in exits.values() and hosts.count > 1 and not {*first.values()} - {signal.SIGTERM}:
        raise InputError(
            "a process of another host has ended; that host says why, and dvc repro goes on from the last checkpoint"
        )
    rank, code = min(first.items())
    raise InputError(
        f"process {rank} of the training was ended by {signal.Signals(code).name}, and the others with it; "
        "dvc repro goes on from the last checkpoint"
    )


def run_member(name: str, work: Callable[..., None]) -> NoReturn:
    """Be one of the processes that `run_together` starts for the stage `name`: join the others, work, and exit.

    `work` is called with the parameters, this process's device, and the arguments.
    """
    parent, parameters, store, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with told_in_words(name):
        params = check_params(json.loads(parameters))
        hardware = params.hardware
        hold_arithmetic(hardware)

        import torch.distributed as dist

        from gan.device import open_device
        from gan.training.processes import SeveredError

        rank, count, here = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        tf32 = hardware.precision == "tf32"
        device = open_device(hardware.device, hardware.threads, hardware.deterministic, tf32=tf32, number=here)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=store, rank=rank, world_size=count)
        try:
            work(params, device, *arguments)
        except SeveredError:
            sys.exit(LOST)
        dist.destroy_process_group()
    sys.exit(0)
