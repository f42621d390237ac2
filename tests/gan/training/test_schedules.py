import pytest

from gan.training.schedules import decay, noise_level


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("none", (1.0, 1.0, 1.0)), ("linear", (1.0, 0.55, 0.1)), ("cosine", (1.0, 0.55, 0.1))],
)
def test_rates_at_the_start_half_way_and_at_the_end(schedule: str, shares: tuple[float, float, float]) -> None:
    assert [decay(schedule, progress, 0.1) for progress in (0.0, 0.5, 1.0)] == pytest.approx(shares)


def test_a_cosine_falls_slowly_at_first() -> None:
    assert decay("cosine", 0.25, 0.0) == pytest.approx((2 + 2**0.5) / 4)


def test_unknown_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="no schedule is named 'x'"):
        decay("x", 0.5, 0.0)


def test_instance_noise_falls_along_a_line_and_stays_at_zero() -> None:
    assert [noise_level(0.2, 10.0, kimg) for kimg in (0.0, 5.0, 10.0, 20.0)] == pytest.approx([0.2, 0.1, 0.0, 0.0])
    assert noise_level(0.2, 0.0, 1e6) == 0.2
