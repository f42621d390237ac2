"""What is said of a training while it runs, on the curves of real ones and on constructed ones."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.hopeless import is_hopeless
from stages.diagnose import spread
from tests.gan.test_diagnosis import make_curves
from tests.stages.small_run import write_prepared

ROOT = Path(__file__).parents[2]
RUNS = Path(__file__).parent / "curves"
"""Curves of real runs to their ends."""
DIGITS, FACES = 0.365, 0.544
"""Spread of the real images: digits at 32x32, and, for the CSPup runs, faces at 64x64."""
GOOD = {
    "default": DIGITS,  # experiment mnist-quick; classifier-FD 1.0
    "dead-start": DIGITS,  # generator.init_std=1e-6: one image for the first 500 steps, 16 in the end
    "five-steps": DIGITS,  # train.n_dis=5: discriminator far ahead almost throughout, 131 in the end and falling
    "hinge": DIGITS,  # with train.lr_d ten times train.lr_g: 212 until three quarters of its training, 28 in the end
    "repaired-cspup": FACES,  # experiment celeba-cspup-converged-small
    "strong-discriminator": DIGITS,  # train.lr_d five times train.lr_g: 201 at half its training, 10 in the end
    "vanilla": DIGITS,  # the original GAN; 54
    "wide-discriminator": DIGITS,  # which knows every image from step 2,825 on; 9.5 all the same
}
BAD = {
    "cspup": FACES,  # experiment celeba-cspup-small: one blur
    "least-squares": DIGITS,  # train.lr_d ten times train.lr_g: noise, 191
    "slow-generator": DIGITS,  # train.lr_d a hundred times train.lr_g: noise, 197
}
DEAD: dict[str, Any] = {"z_spread": 0.002, "loss_d": 0.1, "d_real": 0.97, "d_fake_before": 0.03}

Curves = dict[str, np.ndarray]


def read_run(name: str) -> Curves:
    with (RUNS / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {column: np.array([float(row[column] or "nan") for row in rows]) for column in rows[0]}


def cut(curves: Curves, rows: int) -> Curves:
    return {name: column[:rows] for name, column in curves.items()}


def hopeless_steps(curves: Curves, planned: float, real_spread: float) -> list[float]:
    """The steps at which it would have been stopped, had somebody looked."""
    steps = curves["step"]
    rows = [row for row in range(1, len(steps) + 1) if steps[row - 1] <= planned]
    return [steps[row - 1] for row in rows if is_hopeless(cut(curves, row), int(planned), real_spread)]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("times", [0.5, 1, 2])
def test_a_good_run_is_never_hopeless(name: str, times: float) -> None:
    curves = read_run(name)
    assert hopeless_steps(curves, times * curves["step"][-1], GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_a_run_that_came_to_nothing_is_hopeless_long_before_its_end(name: str) -> None:
    curves = read_run(name)
    planned = curves["step"][-1]
    stopped = hopeless_steps(curves, planned, BAD[name])
    assert 0.35 * planned <= stopped[0] <= 0.75 * planned
    assert stopped[-1] <= 0.9 * planned


def test_a_dead_generator_is_hopeless_from_a_third_of_its_training_on() -> None:
    stopped = hopeless_steps(make_curves(rows=200, steps=5000, **DEAD), 5000, DIGITS)
    assert stopped == list(np.arange(1750, 4501, 25))


def test_so_is_one_that_diverges_whatever_it_varies_by() -> None:
    curves = make_curves(rows=200, steps=5000, grad_norm_g=[1.0, 1.0, 1.0, 5000.0, 5000.0])
    stopped = hopeless_steps(curves, 5000, DIGITS)
    assert stopped
    assert stopped[0] > 2500


def test_a_short_run_is_not() -> None:
    assert not hopeless_steps(make_curves(rows=40, steps=990, **DEAD), 990, DIGITS)
    few_large_batches = make_curves(rows=40, steps=990, **DEAD)
    few_large_batches["kimg"] *= 10
    assert hopeless_steps(few_large_batches, 990, DIGITS)


def test_the_alarm_must_have_held() -> None:
    dead = make_curves(rows=100, steps=2500, **DEAD)
    assert is_hopeless(dead, 5000, DIGITS)
    dead["z_spread"][76:90] = 0.3
    assert not is_hopeless(dead, 5000, DIGITS)


def test_a_generator_on_its_way_is_not_hopeless() -> None:
    growing = np.geomspace(0.0001, 0.01, 30)
    assert not is_hopeless(make_curves(rows=100, steps=2500, **DEAD | {"z_spread": growing}), 5000, DIGITS)
    assert is_hopeless(make_curves(rows=100, steps=2500, **DEAD | {"z_spread": growing}), 3000, DIGITS)


def test_a_generator_without_any_spread_is_hopeless() -> None:
    assert is_hopeless(make_curves(rows=100, steps=2500, **DEAD | {"z_spread": 0.0}), 5000, DIGITS)


def test_little_variety_is_no_fault_where_the_real_images_have_little() -> None:
    assert not is_hopeless(make_curves(rows=100, steps=2500, **DEAD), 5000, 0.003)


def test_the_spread_of_images_is_that_of_the_generators_output() -> None:
    black_and_white = np.array([0, 255], dtype=np.uint8)[:, None, None, None] * np.ones((2, 4, 4, 3), dtype=np.uint8)
    assert spread(black_and_white) == pytest.approx(np.sqrt(2))
    assert spread(np.full((1000, 4, 4, 1), 7, dtype=np.uint8)) == 0


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.diagnose"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_says_it_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_prepared(train=87 * 32)  # 38 epochs of these are 3306 steps
    shutil.copy(ROOT / "params.yaml", tmp_path)
    missing = ask(tmp_path)
    assert missing.returncode == 1
    assert missing.stderr == "diagnose: results/curves.csv: not there; training writes it with its first checkpoint\n"

    (tmp_path / "results").mkdir()
    lines = (RUNS / "slow-generator.csv").read_text().splitlines(keepends=True)
    (tmp_path / "results/curves.csv").write_text("\n")  # of a checkpoint before the first row
    assert json.loads(ask(tmp_path).stdout)["hopeless"] is False
    for rows, hopeless in ((30, False), (80, True)):
        (tmp_path / "results/curves.csv").write_text("".join(lines[: 1 + rows]))
        found = json.loads(ask(tmp_path).stdout)
        assert found["hopeless"] is hopeless
        assert (found["step"], found["kimg"]) == (25 * rows, 0.8 * rows)
    assert found["verdict"] == "discriminator wins"
    assert "D(x) 1.00, D(G(z)) 0.00" in found["evidence"][0]


def test_it_needs_no_heavy_library() -> None:
    code = "import sys, stages.diagnose; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
