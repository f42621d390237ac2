"""Who computes where on this host, with real processes and an nvidia-smi that lists what the test says."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gan.errors import InputError
from stages import slots

ROOT = Path(__file__).parents[2]
UUIDS = [f"GPU-{digit * 8}-d72c-4106-c12f-20bd9faed9f6" for digit in "789"]
MIGS = ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"]

Stage = subprocess.Popen[str]
Start = Callable[..., Stage]
Install = Callable[..., None]

STAGE = """
import json, logging, os, sys, time
from stages import slots

slots.POLL_SECONDS = 0.02
slots.REMIND_SECONDS = float(os.environ.get("REMIND", "600"))
logging.basicConfig(level=logging.INFO, format="%(message)s")
taken = slots.hold_slots("train", os.environ.get("DEVICE", "auto"), int(os.environ.get("COUNT", "1")))
start = time.monotonic()
print(json.dumps({"taken": taken, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}), flush=True)
if len(sys.argv) > 1:
    time.sleep(float(sys.argv[1]))
    print(json.dumps({"start": start, "end": time.monotonic()}), flush=True)
else:
    sys.stdin.read()
"""
"""Takes its slots, says which, and holds them for so many seconds, or until its input ends."""


@pytest.fixture(autouse=True)
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host of the test's own, without GPUs, its locks in `slots`; the test's own process holds none afterwards."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("ATELIER_SLOTS", str(tmp_path / "slots"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(slots, "DRIVER", tmp_path / "driver")
    monkeypatch.setattr(slots, "_held", [])
    yield
    for descriptor in slots._held:
        os.close(descriptor)


@pytest.fixture
def gpus(tmp_path: Path) -> Install:
    """Puts so many GPUs into the host."""

    def install(count: int, parts: dict[int, list[str]] | None = None, status: int = 0) -> None:
        lines = []
        for index, uuid in enumerate(UUIDS[:count]):
            lines.append(f"GPU {index}: NVIDIA A100-SXM4-40GB (UUID: {uuid})")
            for part, mig in enumerate((parts or {}).get(index, [])):
                lines.append(f"  MIG 1g.5gb      Device {part:2}: (UUID: {mig})")
        program = tmp_path / "bin/nvidia-smi"
        listing = "\n".join(lines)
        program.write_text(f'#!/bin/sh\n[ "$*" = -L ] || exit 2\nprintf "%s\\n" "{listing}"\nexit {status}\n')
        program.chmod(0o755)

    return install


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that takes slots as a stage does, in a folder of its own."""
    processes: list[Stage] = []

    def begin(*arguments: str, code: str = STAGE, **environment: str) -> Stage:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def taken(process: Stage, within: float = 10) -> dict[str, Any]:
    """What the process took, once it has."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], within)[0], "still waits"
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    said: dict[str, Any] = json.loads(line)
    return said


def waiting(process: Stage) -> str:
    """The line by which the process says that it waits."""
    assert process.stderr is not None
    assert select.select([process.stderr], [], [], 10)[0]
    return process.stderr.readline()


def times(processes: list[Stage]) -> list[tuple[set[str], float, float]]:
    """The slots that each process held, and from when to when."""
    found = []
    for process in processes:
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        first, last = map(json.loads, output.splitlines())
        assert first["visible"] == ",".join(first["taken"])
        found.append((set(first["taken"]), last["start"], last["end"]))
    return found


def test_the_gpus_are_those_that_nvidia_smi_lists(gpus: Install, tmp_path: Path) -> None:
    assert slots.visible_devices() == []
    gpus(3)
    assert slots.visible_devices() == UUIDS
    gpus(3, {1: MIGS})
    assert slots.visible_devices() == [UUIDS[0], *MIGS, UUIDS[2]]
    gpus(2, status=15)  # the third is broken
    assert slots.visible_devices() == UUIDS[:2]
    (tmp_path / "bin/nvidia-smi").write_text(
        "#!/bin/sh\necho NVIDIA-SMI has failed because it couldn\\'t communicate with the NVIDIA driver.\nexit 9\n"
    )
    assert slots.visible_devices() == []


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [UUIDS[1]]),
        ("2, 0", [UUIDS[2], UUIDS[0]]),
        ("0,-1,1", [UUIDS[0]]),
        ("0,7,1", [UUIDS[0]]),
        ("1,1", [UUIDS[1]]),
        (UUIDS[2], [UUIDS[2]]),
        ("GPU-9999,0", [UUIDS[2], UUIDS[0]]),
        ("GPU-0", []),
        ("GPU", []),
    ],
)
def test_those_that_cuda_is_told_of_are_the_visible_ones(
    named: str, expected: list[str], gpus: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert slots.visible_devices() == expected


def test_parts_of_a_gpu_stand_for_it(gpus: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2, {1: MIGS})
    for named, expected in (("1", MIGS), (UUIDS[1], MIGS), (MIGS[1], MIGS[1:]), ("MIG-c", []), ("MIG-c6", MIGS[:1])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert slots.visible_devices() == expected


def test_without_nvidia_smi_the_names_are_taken_as_they_are_if_there_is_a_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-5,../6,1")
    assert slots.visible_devices() == []
    (tmp_path / "driver").mkdir()
    assert slots.visible_devices() == ["0", "GPU-5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert slots.visible_devices() == []


def test_an_nvidia_smi_that_hangs_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setattr(slots, "NVIDIA_SMI_SECONDS", 0.1)
    with pytest.raises(InputError, match=r"no answer in 0.1 s; .* set hardware.device to cpu"):
        slots.hold_slots("train", "auto", 1)
    assert slots.hold_slots("train", "cpu", 1) == ["cpu"]


def test_more_gpus_than_are_visible_are_refused_and_none_is_held(gpus: Install) -> None:
    gpus(2)
    with pytest.raises(InputError, match=r"^hardware.devices: 3, but the GPUs visible here are 2"):
        slots.hold_slots("train", "auto", 3)
    assert [slot["holder"] for slot in slots.list_slots()] == [None, None]


@pytest.mark.parametrize(
    ("device", "visible", "slot", "shown"),
    [
        ("cpu", None, ["cpu"], ""),
        ("auto", None, [UUIDS[0]], UUIDS[0]),
        ("auto", "1", [UUIDS[1]], UUIDS[1]),
        ("auto", "", ["cpu"], ""),
        ("cuda", "1", [UUIDS[1]], UUIDS[1]),
        ("cuda", "", [], ""),
    ],
)
def test_what_a_stage_holds_and_sees(
    device: str,
    visible: str | None,
    slot: list[str],
    shown: str,
    gpus: Install,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus(2)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots.hold_slots("train", device, 1) == slot
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown


def test_a_host_without_gpus_has_one_slot_and_cuda_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots.hold_slots("train", "cuda", 2) == []
    assert slots.hold_slots("train", "auto", 2) == ["cpu"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # as a shell may have it everywhere
    assert [slot["slot"] for slot in slots.list_slots()] == ["cpu"]


def test_never_more_trainings_than_gpus_and_never_two_on_one(gpus: Install, start: Start) -> None:
    gpus(3)
    held = times([start("0.4") for _ in range(8)])
    assert all(len(devices) == 1 for devices, _, _ in held)
    assert {name for devices, _, _ in held for name in devices} == set(UUIDS)
    for (one, start_one, end_one), (other, start_other, end_other) in combinations(held, 2):
        assert not one & other or end_one <= start_other or end_other <= start_one


def test_runs_on_several_gpus_and_on_one_all_get_theirs(gpus: Install, start: Start) -> None:
    gpus(3)
    held = times([start("0.2", COUNT=count) for count in "22112122"])
    assert sorted(len(devices) for devices, _, _ in held) == [1, 1, 1, 2, 2, 2, 2, 2]
    for (one, start_one, end_one), (other, start_other, end_other) in combinations(held, 2):
        assert not one & other or end_one <= start_other or end_other <= start_one


def test_who_wants_two_gpus_is_not_passed_by_those_who_want_one(gpus: Install, start: Start, tmp_path: Path) -> None:
    gpus(2)
    first, second = start(), start()
    held = [taken(first)["taken"], taken(second)["taken"]]
    both = start(COUNT="2")
    assert "waiting for 2 devices at once: " in waiting(both)
    later = start()
    assert waiting(later).endswith(f", process {both.pid} (train in {tmp_path}) came earlier\n")
    last = start()
    assert waiting(last).endswith(f", process {both.pid} (train in {tmp_path}) and 1 more came earlier\n")
    first.communicate("")
    time.sleep(0.3)
    assert slots.list_slots()[UUIDS.index(held[0][0])]["holder"] is None  # kept for the two
    second.communicate("")
    assert taken(both)["taken"] == UUIDS[:2]
    both.communicate("")
    assert taken(later)["taken"] == [UUIDS[0]]


def test_who_waits_for_one_gpu_keeps_nobody_from_another(gpus: Install, start: Start) -> None:
    gpus(2)
    assert taken(start(CUDA_VISIBLE_DEVICES="0"))["taken"] == [UUIDS[0]]
    waiting(start(CUDA_VISIBLE_DEVICES="0"))
    assert taken(start())["taken"] == [UUIDS[1]]


def test_a_gpu_is_one_slot_whether_named_by_index_or_by_uuid(gpus: Install, start: Start) -> None:
    gpus(2)
    holder = start(CUDA_VISIBLE_DEVICES="1")
    assert taken(holder) == {"taken": [UUIDS[1]], "visible": UUIDS[1]}
    for name in (UUIDS[1], "GPU-888"):
        assert f"{UUIDS[1]} is held by process {holder.pid} " in waiting(start(CUDA_VISIBLE_DEVICES=name))


def test_who_waits_says_once_for_whom(start: Start, tmp_path: Path) -> None:
    holder = start()
    taken(holder)
    line = f"waiting for a device: cpu is held by process {holder.pid} (train in {tmp_path})\n"
    waiter = start()
    assert waiting(waiter) == line
    impatient = start(REMIND="0.1")
    expected = line[:-1] + f", process {waiter.pid} (train in {tmp_path}) came earlier\n"
    assert [waiting(impatient) for _ in range(3)] == 3 * [expected]
    holder.communicate("")
    taken(waiter)
    assert waiter.communicate("")[1] == ""
    taken(impatient)
    assert sorted(file.name for file in (tmp_path / "slots").iterdir()) == ["cpu.lock", "turn"]


def test_a_killed_holder_frees_its_slot_though_its_worker_lives_on(start: Start) -> None:
    forks = STAGE.replace("start =", "worker = os.fork()\nif not worker:\n    time.sleep(60)\nstart =", 1)
    forks = forks.replace('{"taken"', '{"worker": worker, "taken"', 1)
    holder = start(code=forks)
    worker = taken(holder)["worker"]
    try:
        waiter = start()
        assert str(holder.pid) in waiting(waiter)
        holder.kill()
        assert taken(waiter, within=5)["taken"] == ["cpu"]
        assert (Path("/proc") / str(worker)).exists()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_wait_ends_at_once_when_told_to_and_leaves_no_claim(start: Start) -> None:
    holder = start()
    taken(holder)
    waiter = start()
    waiting(waiter)
    waiter.terminate()
    assert waiter.wait(5) == -signal.SIGTERM
    holder.communicate("")
    last = start()
    assert taken(last)["taken"] == ["cpu"]
    assert last.communicate("")[1] == ""


def test_all_users_can_lock_the_files_whatever_the_umask(start: Start) -> None:
    first = start(code="import os\nos.umask(0o077)" + STAGE)
    taken(first)
    waiting(start(code="import os\nos.umask(0o077)" + STAGE))
    folder = Path(os.environ["ATELIER_SLOTS"])
    assert folder.stat().st_mode & 0o7777 == 0o1777
    names = {file.name.rpartition(".")[2]: file for file in folder.iterdir()}
    assert set(names) == {"turn", "lock", "ticket"}
    assert {file.stat().st_mode & 0o7777 for file in names.values()} == {0o666}


def test_links_that_another_user_may_have_put_there_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots/cpu.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=r"slots/cpu.lock: Too many levels of symbolic links; .* ATELIER_SLOTS"):
        slots.hold_slots("train", "cpu", 1)
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.delenv("ATELIER_SLOTS")
    monkeypatch.setattr(slots, "FOLDER", tmp_path / "link")
    with pytest.raises(InputError, match="link: Not a directory; "):
        slots.hold_slots("train", "cpu", 1)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_spoilt_file_harms_nobody(start: Start, tmp_path: Path) -> None:
    taken(start())
    (tmp_path / "slots/cpu.lock").write_text("[1, ")
    (tmp_path / "slots/00.ticket").write_text("")
    assert waiting(start()) == "waiting for a device: cpu is held by a process that left no name\n"


def test_the_slots_are_printed_with_their_holders(gpus: Install, start: Start, tmp_path: Path) -> None:
    def printed(*arguments: str) -> str:
        command = [sys.executable, "-m", "stages.slots", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert printed() == "cpu  free\n"
    gpus(2)
    holder = start(CUDA_VISIBLE_DEVICES="1")
    taken(holder)
    assert printed() == f"{UUIDS[0]}  free\n{UUIDS[1]}  held by process {holder.pid} (train in {tmp_path})\n"
    assert json.loads(printed("--json")) == [
        {"slot": UUIDS[0], "holder": None},
        {"slot": UUIDS[1], "holder": {"pid": holder.pid, "stage": "train", "folder": str(tmp_path)}},
    ]


def test_to_ask_for_the_slots_imports_no_math_library() -> None:
    code = "import sys; import stages.slots; print({'numpy', 'torch', 'pydantic'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_the_stages_that_open_a_device_are_those_that_hold_one() -> None:
    names = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert {name for name in names if "open_device(" in (ROOT / f"stages/{name}.py").read_text()} == slots.COMPUTING


RUN_STAGE = """
import os, sys, time
from stages import slots
from stages.stage import run_stage

slots.POLL_SECONDS = 0.02

def run(params):
    print(repr(os.environ.get("CUDA_VISIBLE_DEVICES")), flush=True)
    print(time.monotonic(), flush=True)
    sys.stdin.read()
    time.sleep(0.2)
    print(time.monotonic(), flush=True)

run_stage(sys.argv[1], run)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the project's parameters, on the processor, and its pipeline."""
    params = YAML().load(ROOT / "params.yaml")
    params["hardware"]["device"] = "cpu"
    YAML().dump(params, tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    return tmp_path


@pytest.mark.usefixtures("project")
def test_stages_on_the_processor_take_turns_and_others_need_none(start: Start) -> None:
    computing = [start(name, code=RUN_STAGE) for name in ("train", "evaluate")]
    preparing = start("prepare", code=RUN_STAGE)
    spans = []
    output, errors = preparing.communicate("", timeout=30)
    assert output.startswith("None\n"), errors
    for process in computing:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in computing:
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        visible, *span = output.splitlines()
        assert visible == "''"
        spans.append([float(moment) for moment in span])
    first, second = sorted(spans)
    assert first[1] <= second[0]


def test_inputs_that_change_while_a_stage_waits_fail_it_before_it_computes(project: Path, start: Start) -> None:
    holder = start()
    taken(holder)
    waiter = start("train", code=RUN_STAGE)
    assert waiting(waiter).startswith("waiting for a device: cpu is held by ")
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("epochs: 38", "epochs: 39"))
    holder.communicate("")
    output, errors = waiter.communicate("", timeout=30)
    assert (waiter.returncode, output) == (1, "")
    assert errors.splitlines()[-1] == "train: train.epochs changed while the stage ran; run it again"
