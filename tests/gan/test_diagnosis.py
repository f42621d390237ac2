import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gan import diagnosis
from gan.diagnosis import Curve, Run, diagnose
from gan.params import Params

HEALTHY = {
    "loss_d": 1.13,
    "loss_g": 0.86,
    "d_real": 0.57,
    "d_fake_before": 0.43,
    "d_fake_after": 0.42,
    "saturated": 0.01,
    "z_spread": 0.37,
    "grad_norm_d": 3.4,
    "grad_norm_g": 0.6,
    "grad_norm_g_first": 0.1,
}
LOST: dict[str, Any] = {
    "loss_d": 0.12,
    "loss_g": 4.0,
    "d_real": 0.98,
    "d_fake_before": 0.06,
    "d_fake_after": 0.04,
    "saturated": 0.6,
}
FLOOR = 1.2
FALLEN = (104.0, 11.8, 6.4, 4.6, 4.0, 3.2, 2.8, 2.4, 2.0, 1.9, 1.7, 1.65, 1.6, 1.6, 1.5, 1.52)
"""The course of the Fréchet distance in the default run."""


def make_curves(rows: int = 200, steps: int = 5000, noise: float = 0.0, **ends: Any) -> dict[str, Curve]:
    """Constant curves, `HEALTHY` where not given; a given sequence is stretched over the rows."""
    random = np.random.default_rng(0)
    step = np.linspace(steps / rows, steps, rows)
    columns = {"step": step, "kimg": step * 0.032}
    for name, value in (HEALTHY | ends).items():
        level = np.atleast_1d(np.asarray(value, dtype=np.float64))
        stretched = np.interp(np.linspace(0, 1, rows), np.linspace(0, 1, len(level)), level)
        columns[name] = stretched * np.exp(noise * random.normal(size=rows))
    return columns


def course(*distances: float) -> list[tuple[float, float]]:
    return [(10.0 * (index + 1), distance) for index, distance in enumerate(distances)]


def make_run(distances: tuple[float, ...] = FALLEN, distance: float | None = 1.02, **ends: Any) -> Run:
    return Run(make_curves(**ends), 0.145, 0.014, course(*distances), distance, FLOOR, 0.95)


def by_curves_alone(**ends: Any) -> Run:
    return replace(make_run(**ends), trajectory=[], distance=None, floor=None, diversity=None)


def verdict(run: Run) -> str:
    return diagnose(run).verdict


FAILED = Run(
    make_curves(
        rows=10,
        steps=257,
        **LOST | {"loss_d": 0.16, "z_spread": 0.005, "grad_norm_g_first": 2e-4},
    ),
    0.003,
    1.8e-4,
    [],
    None,
    None,
    None,
)
"""CSPup as first written on faces, with its discriminator's loss after 257 steps."""
GALLERY = {
    "converged": make_run(),
    "still improving": make_run((104, 50, 25, 12), 11.0),
    "stopped too early": by_curves_alone(rows=5, steps=200),
    "stalled": make_run((60, 40, 30, 26, 25, 25, 24, 25), 24.5),
    "mode collapse": replace(make_run((104, 90, 88, 85, 84, 85, 84, 84), 84.0), diversity=0.5),
    "discriminator wins": make_run((170, 172, 175, 176, 174, 176, 175, 176), 176.0, **LOST),
    "generator collapsed": FAILED,
    "diverged": make_run((104, 20, 10, 8, 7, 9, 30, 80), 78.0),
}


@pytest.mark.parametrize("expected", GALLERY)
def test_each_verdict_comes_with_its_rule_its_numbers_and_a_way_on(expected: str) -> None:
    found = diagnose(GALLERY[expected])
    assert found.verdict == expected
    assert any(digit in found.rule for digit in "0123456789") or "not finite" in found.rule
    assert found.rule.endswith(".")
    assert found.evidence
    assert all(phrase and "nan" not in phrase for phrase in found.evidence)
    assert found.explanation.count(".") >= 2
    assert any(section in found.advice for section in ("generator.", "train.", "evaluate."))


def test_every_parameter_that_the_advice_names_exists() -> None:
    text = "".join(diagnose(run).advice for run in [*GALLERY.values(), by_curves_alone()])
    named = set(re.findall(r"\b(data|generator|discriminator|train|evaluate)\.([a-z]\w+)", text))
    assert len(named) > 8
    for section, name in named:
        annotation = Params.model_fields[section].annotation
        assert annotation is not None
        assert name in annotation.model_fields, (section, name)


def test_the_distance_is_held_against_real_images_at_equal_counts() -> None:
    run = replace(make_run(distance=1.1), real_variance=80.0)
    assert diagnose(run).evidence[0] == (
        "Fréchet distance 1.1, 0.014 times that of one average real image (their variance); "
        f"{1.1 / FLOOR:.2g} times the {FLOOR:.3g} of held-out real images"
    )
    assert diagnose(replace(run, equal_counts=2 * FLOOR)).evidence[0] == (
        "Fréchet distance 1.1, 0.014 times that of one average real image (their variance); "
        f"of as many samples as held-out real images {2 * FLOOR:.3g}, 2 times the {FLOOR:.3g} of these"
    )
    unknown = diagnose(make_run(distance=1.1)).evidence[0]
    assert unknown == f"Fréchet distance 1.1, {1.1 / FLOOR:.2g} times the {FLOOR:.3g} of held-out real images"


# The generator


def test_the_failing_experiment_is_told_by_its_numbers() -> None:
    found = diagnose(FAILED)
    assert found.evidence[0] == ("output spread across z 0.003 at initialisation (alarm below 0.02), 0.005 at the end")
    assert found.evidence[1] == "gradient norm at the generator's first block 0.00018 at initialisation"
    assert "generator.block=after" in found.advice


def test_a_generator_that_lost_its_variety_is_not_told_to_mend_its_beginning() -> None:
    for found in (
        diagnose(by_curves_alone(z_spread=(0.3, 0.3, 0.3, 0.01, 0.01))),
        diagnose(by_curves_alone(z_spread=(0.5, 0.5, 0.5, 0.04, 0.04))),
    ):
        assert found.verdict == "generator collapsed"
        assert "generator.block" not in found.advice


def test_a_generator_that_found_its_way_out_is_no_collapsed_one() -> None:
    run = replace(by_curves_alone(z_spread=(0.003, 0.2, 0.3, 0.3)), initial_z_spread=0.003)
    found = diagnose(run)
    assert found.verdict == "converged"
    assert any("0.003 at initialisation" in phrase for phrase in found.evidence)


@pytest.mark.parametrize(("spread", "expected"), [(0.0199, "generator collapsed"), (0.0201, "converged")])
def test_the_alarm_of_the_spread(spread: float, expected: str) -> None:
    assert verdict(by_curves_alone(z_spread=spread)) == expected


def test_nearly_black_images_of_measured_diversity_are_no_collapse() -> None:
    assert verdict(make_run(z_spread=0.01)) == "converged"


def test_one_image_here_stronger_and_there_weaker_is_a_collapse() -> None:
    """As CSPup as first written ends on faces: one blur for every z, the discriminator sure, a distance that wavers."""
    blur = make_run((7633, 7277, 6795, 8994, 9111, 8631, 7167, 6563), 6575.0, **LOST | {"z_spread": 0.024})
    blur = replace(blur, initial_z_spread=2e-4, floor=46.0, real_variance=1600.0)
    assert verdict(replace(blur, diversity=0.13)) == "generator collapsed"
    assert verdict(replace(blur, diversity=0.4)) == "discriminator wins"  # what fell only made up for a rise


def test_wild_noise_of_an_untrained_generator_is_no_variety_to_lose() -> None:
    assert verdict(by_curves_alone(z_spread=(0.9, 0.06, 0.06, 0.06, 0.06, 0.06, 0.06))) == "converged"


def test_without_the_spread_features_tell() -> None:
    run = replace(make_run((150, 150, 150, 150), 150.0, z_spread=np.nan), diversity=0.01)
    assert verdict(run) == "generator collapsed"


# The discriminator


def test_a_discriminator_that_wins_leaves_the_generator_its_variety() -> None:
    assert verdict(by_curves_alone(**LOST)) == "discriminator wins"
    assert verdict(by_curves_alone(**LOST | {"z_spread": 0.005})) == "generator collapsed"


def test_a_strong_discriminator_beside_good_or_improving_samples_has_not_won() -> None:
    assert verdict(make_run(**LOST)) == "converged"
    assert verdict(make_run((300, 200, 130, 90), 88.0, **LOST)) == "still improving"


def test_samples_that_got_better_once_and_stay_bad_excuse_no_winning_discriminator() -> None:
    assert verdict(make_run((400, 300, 190, 190, 190, 190, 190, 190), 190.0, **LOST)) == "discriminator wins"


def test_bad_samples_convict_a_discriminator_that_is_less_sure() -> None:
    ahead = {"d_real": 0.85, "d_fake_before": 0.2, "saturated": 0.1, "loss_d": 0.4}
    assert verdict(by_curves_alone(**ahead)) == "converged"
    assert verdict(make_run((170, 172, 175, 176), 176.0, **ahead)) == "discriminator wins"


def test_label_smoothing_hides_no_victory() -> None:
    smoothed = {"loss_d": 0.36, "d_real": 0.89, "d_fake_before": 0.01, "saturated": 0.47}
    assert verdict(by_curves_alone(**smoothed)) == "discriminator wins"


def test_a_relativistic_pair_may_drift_together() -> None:
    for level in (0.0001, 0.9999):
        run = by_curves_alone(d_real=level, d_fake_before=level, d_fake_after=level, saturated=1.0, loss_d=0.6)
        assert verdict(run) == "converged"
    assert verdict(by_curves_alone(d_real=0.5, d_fake_before=0.001, saturated=0.5, loss_d=0.01)) == "discriminator wins"


def test_a_critic_is_no_judge() -> None:
    """Wasserstein outputs are far apart and large in health, and the loss is negative."""
    run = by_curves_alone(loss_d=(-9.0, -4.0), loss_g=(-30.0, 40.0), d_real=1.0, d_fake_before=0.0, saturated=1.0)
    assert verdict(run) == "converged"
    assert verdict(by_curves_alone(loss_d=(-0.5, 0.01), d_real=0.5, d_fake_before=0.5, saturated=0.0)) == "converged"


def test_outputs_that_are_no_log_odds_are_judged_by_the_loss() -> None:
    least_squares = {"d_real": 0.73, "d_fake_before": 0.51, "saturated": 0.0}
    assert verdict(by_curves_alone(loss_d=0.02, **least_squares)) == "discriminator wins"
    assert verdict(by_curves_alone(loss_d=0.15, **least_squares)) == "converged"
    hinge = {"d_real": 0.8, "d_fake_before": 0.2, "saturated": 0.05}
    assert verdict(by_curves_alone(loss_d=0.01, **hinge)) == "discriminator wins"
    assert verdict(by_curves_alone(loss_d=0.9, **hinge)) == "converged"


def test_a_generator_dead_from_the_start_is_to_be_mended_before_its_opponent() -> None:
    run = replace(by_curves_alone(**LOST | {"z_spread": 0.05}), initial_z_spread=0.003)
    assert verdict(run) == "discriminator wins"
    assert "generator.block=after" in diagnose(run).advice
    recovered = replace(by_curves_alone(**LOST), initial_z_spread=0.005)
    assert "train.r1_gamma" in diagnose(recovered).advice


# The course


def test_infinite_numbers_are_divergence() -> None:
    for name in ("loss_d", "loss_g", "grad_norm_g"):
        curves = make_curves()
        curves[name][150:] = np.inf
        assert verdict(replace(make_run(), curves=curves)) == "diverged"
    curves = make_curves()
    curves["loss_d"][-40:] = np.nan
    assert verdict(replace(make_run(), curves=curves)) == "diverged"


def test_empty_cells_are_no_divergence() -> None:
    """A generator that steps seldom leaves cells empty, and so may the last row."""
    curves = make_curves()
    curves["loss_g"][::2] = curves["grad_norm_g"][::2] = np.nan
    for column in curves.values():
        column[-1] = np.nan
    curves["step"][-1] = 5000
    assert verdict(replace(make_run(), curves=curves)) == "converged"


def test_exploding_gradients_count_unless_the_samples_hold() -> None:
    assert verdict(by_curves_alone(grad_norm_g=(0.6, 0.6, 0.6, 400, 900))) == "diverged"
    assert verdict(by_curves_alone(loss_g=(0.6, 0.6, 0.6, -400, -900))) == "diverged"
    assert verdict(by_curves_alone(grad_norm_d=120)) == "converged"
    assert verdict(by_curves_alone(grad_norm_g=(0.6, 0.6, 0.6, 80, 90))) == "converged"
    assert verdict(make_run(grad_norm_g=(0.6, 0.6, 0.6, 400, 900))) == "converged"


@pytest.mark.parametrize(
    ("last", "expected"),
    [(9.9, "converged"), (10.1, "diverged")],
)
def test_a_distance_that_doubles_has_diverged(last: float, expected: str) -> None:
    found = diagnose(make_run((104, 20, 10, 8, 6, 5, 5, last), 8.0))
    assert found.verdict == expected
    if expected == "diverged":
        assert "kept generator at 60 kimg is better" in found.advice


def test_near_the_floor_twice_as_much_is_still_little() -> None:
    assert verdict(make_run((104, 20, 8, 3, 2, 1.5, 1.5, 3.4), 3.0)) == "converged"


@pytest.mark.parametrize(("fall", "expected"), [(0.14, "converged"), (0.16, "still improving")])
def test_the_fall_of_a_quarter_decides_whether_it_was_too_early(fall: float, expected: str) -> None:
    distances = 20 * (1 - fall) ** (np.arange(16) / 4)
    assert verdict(make_run(tuple(distances), float(distances[-1]))) == expected


def test_far_from_the_real_images_a_slow_fall_still_leads_somewhere() -> None:
    slow = tuple(2000 * 0.9 ** (np.arange(8) / 2))  # 10 % a quarter
    assert verdict(replace(make_run(slow, slow[-1]), real_variance=1600.0)) == "still improving"
    assert verdict(replace(make_run(slow, slow[-1]), real_variance=16000.0)) == "converged"


def test_a_fall_that_is_over_is_none() -> None:
    assert verdict(make_run((104, 50, 30, 20, 20, 20, 10, 10, 10, 10), 10.0)) == "converged"


def test_real_images_come_no_closer_than_the_floor() -> None:
    assert verdict(make_run((104, 50, 10, 6, 3, 1.5), 1.1)) == "converged"
    assert verdict(make_run((104, 50, 10, 6, 3, 1.5), 1.3)) == "still improving"


@pytest.mark.parametrize("distances", [(8.0,), (8.0, 8.1), (30.0, 8.1, 8.0)])
def test_few_kept_generators_are_enough(distances: tuple[float, ...]) -> None:
    assert verdict(make_run(distances, 8.0)) == "converged"


def test_two_kept_generators_show_a_fall() -> None:
    assert verdict(make_run((30.0, 8.0), 8.0)) == "still improving"


def test_a_short_run_proves_nothing_but_an_alarm_counts() -> None:
    assert verdict(by_curves_alone(rows=5, steps=999)) == "stopped too early"
    assert verdict(by_curves_alone(rows=5, steps=1000)) == "converged"
    assert verdict(make_run((180, 179, 181, 180), 180.0, rows=5, steps=132)) == "stopped too early"
    assert verdict(make_run((104, 6, 5, 5), 5.0, rows=5, steps=900)) == "converged"
    assert verdict(make_run((), 5.0, rows=5, steps=900)) == "stopped too early"


def test_few_steps_of_large_batches_are_not_short() -> None:
    large = replace(make_run((180, 179, 181, 180), 180.0), curves=make_curves(steps=930, kimg=238.0))
    assert verdict(large) == "stalled"


@pytest.mark.parametrize(("distance", "expected"), [(17.9, "converged"), (18.1, "stalled")])
def test_a_plateau_far_from_the_floor_is_not_called_converged(distance: float, expected: str) -> None:
    assert verdict(make_run((60, 30, 18, 18, 18, 18, 18, 18), distance)) == expected


@pytest.mark.parametrize(("distance", "expected"), [(39.0, "converged"), (41.0, "stalled")])
def test_the_variance_of_the_real_images_is_the_better_yardstick(distance: float, expected: str) -> None:
    """A floor may be nearly nothing, where there are many real images."""
    run = make_run((170, 70, 40, 40, 40, 40, 40, 40), distance)
    assert verdict(replace(run, floor=0.01, real_variance=80.0)) == expected
    assert verdict(replace(run, floor=None, real_variance=80.0)) == expected
    assert verdict(replace(run, floor=0.01)) == "stalled"


@pytest.mark.parametrize(("diversity", "expected"), [(0.59, "mode collapse"), (0.61, "converged")])
def test_low_diversity_of_features_is_mode_collapse(diversity: float, expected: str) -> None:
    assert verdict(replace(make_run(), diversity=diversity)) == expected


def test_without_features_a_shrunken_spread_hints_at_mode_collapse() -> None:
    assert verdict(by_curves_alone(z_spread=(0.3, 0.3, 0.3, 0.09, 0.09))) == "mode collapse"
    assert verdict(by_curves_alone(z_spread=(0.3, 0.3, 0.3, 0.11, 0.11))) == "converged"


# What is missing, and noise


def test_curves_alone_are_said_to_be_alone() -> None:
    found = diagnose(by_curves_alone())
    assert found.verdict == "converged"
    assert found.evidence[0] == "no feature extractor: judged by the curves alone"
    assert "evaluate.extractor" in found.advice


def test_curves_without_the_newer_columns_will_do() -> None:
    curves = {
        name: column
        for name, column in make_curves().items()
        if name not in ("saturated", "z_spread", "grad_norm_g_first")
    }
    run = replace(make_run(), curves=curves, initial_z_spread=None, initial_grad_norm_g_first=None)
    assert verdict(run) == "converged"
    assert "spread" not in " ".join(diagnose(run).evidence)


def test_a_run_of_nothing_has_a_verdict() -> None:
    for curves in ({}, make_curves(rows=1, steps=1), {name: column[:0] for name, column in make_curves().items()}):
        found = diagnose(Run(curves, None, None, [], None, None, None))
        assert found.verdict == "stopped too early"
        assert "nan" not in " ".join(found.evidence)


def test_a_floor_of_nothing_is_no_yardstick() -> None:
    for floor in (None, 0.0):
        assert verdict(replace(make_run(), floor=floor)) == "converged"


def test_noise_changes_no_verdict() -> None:
    for seed in range(40):
        random = np.random.default_rng(seed)
        noisy = tuple(np.array(FALLEN[:8] + (2.4,) * 8) * np.exp(0.05 * random.normal(size=16)))
        assert verdict(replace(make_run(noisy, 2.3, noise=0.3), diversity=0.95)) == "converged"
        falling = tuple(104 * 0.6 ** (np.arange(16) / 4) * np.exp(0.05 * random.normal(size=16)))
        assert verdict(make_run(falling, falling[-1])) == "still improving"


def test_one_odd_row_decides_nothing() -> None:
    curves = make_curves()
    curves["z_spread"][-1] = 0.0
    curves["grad_norm_d"][-1] = 1e6
    curves["loss_d"][-1] = 0.0
    assert verdict(replace(by_curves_alone(), curves=curves)) == "converged"


def test_thresholds_are_in_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "SPREAD_ALARM", 0.5)
    found = diagnose(by_curves_alone())
    assert found.verdict == "generator collapsed"
    assert "ends below 0.5 " in found.rule
