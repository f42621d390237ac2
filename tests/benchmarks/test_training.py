import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import training
from benchmarks.loops import LOOPS
from benchmarks.measuring import Finished, build_networks
from benchmarks.operations import Operations
from benchmarks.profiling import REST, covered, profile
from benchmarks.training import OURS, Case, Clock, baselines, count_operations

TOY = (
    "generator.base=2", "discriminator.base=2", "generator.z_dim=8", "train.batch_size=4", "train.log_every=2",
    "train.grid_every=3", "hardware.device=cpu", "hardware.threads=1",
)  # fmt: skip
BATCH, SIDE, Z = 4, 32, 8


def toy(*changes: str, experiment: str = "mnist-quick", steps: int = 8) -> Case:
    return Case(experiment, (*TOY, *changes), steps, 0)


@pytest.mark.parametrize("name", LOOPS)
def test_a_baseline_trains_both_networks(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = build_networks(toy().params)
    before = [[parameter.detach().clone() for parameter in network.parameters()] for network in networks]
    loader = [(torch.rand(BATCH, 1, SIDE, SIDE) * 2 - 1, torch.zeros(BATCH)) for _ in range(3)]
    steps: list[int] = []

    curves = LOOPS[name](*networks, loader, Z, torch.device("cpu"), tmp_path, lambda: steps.append(1))

    assert len(steps) == len(curves["loss_d"]) == len(curves["loss_g"]) == 3
    assert all(math.isfinite(value) for values in curves.values() for value in values)
    for network, old in zip(networks, before, strict=True):
        assert not any(torch.equal(*pair) for pair in zip(old, network.parameters(), strict=True))


def test_operations_of_a_product_and_of_a_gradients_gradient() -> None:
    weight, one = torch.ones(3, 5, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    with Operations() as operations:
        product = one @ weight
        assert operations.total == 60  # 2x3 by 3x5
        (slope,) = torch.autograd.grad(product.sum(), one, create_graph=True)
        assert operations.total == 120  # 2x5 by 5x3
        torch.autograd.grad(slope.square().sum(), weight)
        assert operations.total == 180  # 3x2 by 2x5


def operations_of(network: torch.nn.Module, inputs: torch.Tensor) -> float:
    with Operations() as operations, torch.no_grad():
        network(inputs)
    return float(operations.total / len(inputs))


@pytest.mark.parametrize("experiment", ["mnist-quick", pytest.param("celeba-cspup", marks=pytest.mark.slow)])
def test_loops_differ_by_the_passes_that_they_are_known_to_save(experiment: str) -> None:
    case = toy("train.r1_gamma=0", "train.fresh_latents=true", experiment=experiment)
    params = case.params
    generator, discriminator = build_networks(params)
    drawn = operations_of(generator, torch.randn(2, Z))
    images = torch.randn(2, params.data.channels, params.data.image_size, params.data.image_size)
    judged = operations_of(discriminator, images)

    found = count_operations(case)
    write_up, examples = (
        found["MNIST write-up" if experiment == "mnist-quick" else "CelebA write-up"],
        found["PyTorch examples"],
    )

    # What the weights' gradient takes is what the pass forward takes. The project asks for none of the discriminator's
    # in the generator's step, and the examples draw no fresh fakes for it.
    assert write_up - found[OURS] == judged
    assert write_up - examples == drawn
    assert found[OURS] > 3 * drawn + 7 * judged


def test_the_r1_penalty_counts() -> None:
    each_step, now_and_then = "train.penalty_interval=1", "train.penalty_interval=4"
    without, with_penalty = (count_operations(toy(f"train.r1_gamma={gamma}", each_step))[OURS] for gamma in (0, 1))
    lazy = count_operations(toy("train.r1_gamma=1", now_and_then))[OURS]

    assert with_penalty > 1.2 * without
    assert lazy - without == (with_penalty - without) / 4


def test_the_clock_begins_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 16.0])
    monkeypatch.setattr("benchmarks.training.time.perf_counter", lambda: next(times))
    clock = Clock(2, 6, torch.device("cpu"))
    for _ in range(6):
        clock.tick()

    assert clock.seconds == 6.0


def test_spans_that_overlap_count_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
    assert covered([]) == 0


def test_the_profile_tells_the_parts() -> None:
    case = toy(steps=12)
    text = profile(case.params, partial(training._train_ours, case), case.steps)["text"]

    milliseconds = {
        part: float(value) for part, value in re.findall(r"^\| ([^|`]+) \| ([0-9.]+) \|", text, re.MULTILINE)
    }
    assert milliseconds["networks"] > 0
    others = sum(milliseconds[part] for part in ("data", "curves", "grids")) + milliseconds[REST]
    assert milliseconds["all but the networks"] == pytest.approx(others, abs=0.03)
    assert "aten::convolution_backward" in text


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every contestant run here, where PyTorch is there already."""

    def run(_module: str, task: dict[str, Any]) -> Finished:
        return Finished(0, 0, training.work(json.loads(json.dumps(task))))

    monkeypatch.setattr(training, "run_task", run)
    monkeypatch.setattr("stages.arithmetic.hold_arithmetic", lambda _: None)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("experiment", ["mnist-quick", pytest.param("celeba-cspup", marks=pytest.mark.slow)])
def test_the_table_of_an_experiment(experiment: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--set={change}" for change in TOY]
    training.main(
        [experiment, "--steps=4", "--rounds=2", "--workers=0", "--toy", "--mode=train.augment=[cutout]", *words]
    )

    lines = capsys.readouterr().out.splitlines()
    rows = {row[1].strip(): row for row in (line.split("|") for line in lines if line.startswith("| "))}
    params = toy(experiment=experiment).params
    assert set(rows) == {"loop", "---", OURS, f"{OURS}, train.augment=[cutout]", *baselines(params)}
    for name in {*rows} - {"loop", "---"}:
        step, speed = float(rows[name][2]), float(rows[name][3].replace(",", ""))
        assert speed == pytest.approx(1000 * BATCH / step, rel=0.1)
    assert rows[OURS][4].strip() == "1.00 (1.00 to 1.00)"


def test_the_row_of_constructed_times() -> None:
    row = training._row("theirs", [0.3, 0.5, 0.2], [0.1, 0.1, 0.1], batch=30, operations=6e9, limit=1e11)

    assert row == ("theirs", "300.0", "100", "3.00 (2.00 to 5.00)", "6.0", "20%")


def test_a_mode_that_the_schema_does_not_know_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"hardware\.speed: unknown key"):
        training.main(["mnist-quick", "--set=hardware.speed=11"])
    with pytest.raises(SystemExit, match=r"hardware\.speed: unknown key"):
        training.main(["mnist-quick", "--mode=hardware.speed=11"])


def test_a_task_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    task = {"work": "baseline", "case": ["mnist-quick", TOY, 4, 0], "name": "MNIST write-up", "archive": None}
    training.main(["--task", json.dumps(task)])

    assert json.loads(capsys.readouterr().out)["seconds"] > 0
