"""What the numbers of a finished run say: one verdict, the rule that gave it, and what to try next.

The rules are tried in a fixed order, causes before symptoms, and the first that applies speaks. A number that was not
measured is NaN here, and every comparison with NaN is false: what is missing never speaks for a rule.

Calibrated on runs on MNIST at 32x32, scored in the classifier's features at a floor of 1.2. There the trained DCGAN
ends at 0.85 floors with a feature diversity of 0.95. Real digits of nine classes measure 2 floors, of five 20,
of one 60 to 80 at a diversity of 0.42 to 0.71; a constant grey image 130.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

END = 0.1
"""Share of the curves, at the end, whose median is what a run ended with: one odd row decides nothing."""
MIN_ROWS = 3
"""Rows that such a median has at least, where there are as many."""
WARM_UP = 0.25
"""Share of the curves, at the start, that the highest spread is not looked for in: the noise of an untrained generator
may be wilder than any image."""

SPREAD_ALARM = 0.02
"""Output spread across z: 2.5 grey levels of 255. The CSPup generator as first written starts at 0.003, repaired at
0.145; MNIST itself has 0.37."""
SPREAD_LOW = 0.1
"""Spread at the end of a generator that began below the alarm and never came far; the vanilla one begins at 0.005 and
reaches 0.19 within 1,300 steps."""
SPREAD_LOST = 0.1
"""Spread against its highest: what is left is noise about one image."""
SPREAD_SHRUNK = 1 / 3
"""Spread against its highest: without features, the only trace of a mode collapse. One of MNIST's classes alone keeps
0.5 to 0.9 of the spread of all ten, so a fall to a third is no matter of a few lost modes."""
DIVERSITY_NONE = 0.1
"""Feature diversity of what is one image with noise; a constant measures below 0.01, weak noise 0.15."""
DIVERSITY_FAINT = 0.25
"""Feature diversity beside a low spread of what is one image, here stronger and there weaker: 0.13 where CSPup as first
written came to draw one blur for every z, at a spread of 0.024; 0.35 where it drew two or three."""
DIVERSITY_LOW = 0.6
"""Feature diversity that many lost modes leave; a trained DCGAN has 0.95, and 0.77 after an eighth of its training."""

GAP_WON = 0.8
"""D(x) - D(G(z)) of a discriminator that knows nearly every image; label smoothing at 0.9 holds it below 0.9."""
SATURATED = 0.25
"""Share of D's outputs surer than 0.993 beside it: 0.33 where the generator learned 100 times more slowly and drew
noise to the end, 0 to 0.02 in balance. Under label smoothing only the fakes, half of all, can be so sure."""
LOSS_WON = 0.05
"""Discriminator loss, of those that are zero for a perfect one (all but wasserstein): in cross-entropy D(x) about 0.975
and D(G(z)) about 0.025; in least squares outputs within 0.22 of their targets."""
GAP_AHEAD = 0.6
"""D(x) - D(G(z)) that is enough where the samples are measured to be bad: many good generators live with it."""

EXPLODED = 100.0
"""Gradient norm, or absolute loss, that is an alarm whatever the networks."""
EXPLODED_TIMES = 10.0
"""How much larger than its median over the first half it must be as well: some critics are large from the start."""
ROSE_TIMES = 2.0
"""Last Fréchet distance of the trajectory against its best: far beyond the 5 % by which 1,000 samples scatter."""
ROSE_FLOORS = 2.0
"""How many floors that rise must be as well: near the floor, twice as much is still little."""
HOLDS_TIMES = 1.25
"""Last distance against the best that counts as having held it."""

FAR_VARIANCES = 0.5
"""Fréchet distance, in units of the real images' variance, that is no likeness: their mean alone, drawn for every z,
measures 1 whatever the data and the extractor; half of MNIST's classes missing 0.3, a single one 0.8 to 1.2, noise 3 to
7."""
FAR_FLOORS = 15.0
"""The same in floors, where that variance is not known; a floor shrinks with the count of real images."""
CLOSE_FLOORS = 1.0
"""Distance in floors below which a further fall is none: real images measure 1."""
STILL_FALLING = 0.15
"""Fall of the distance from the third to the last quarter of training, as a share; 0.12 in a run whose learning rates
have fallen to zero."""
FALLING_ON = 0.05
"""Fall per quarter within the last one, as a share: the fall before must go on, for it to be worth waiting. Where the
samples are far from the real images, this much is enough before as well."""
IMPROVED = 0.8
"""Last distance against the first of the trajectory: a fall that only makes up for a rise before is no progress."""
SHORT_STEPS = 1000
"""Steps before which nothing can be called settled: good recipes show shapes after 300 to 500."""
SHORT_KIMG = 64.0
"""Thousands of images that fewer steps, of larger batches, make up for them."""


@dataclass(frozen=True)
class Run:
    """What was measured of a run; None or NaN where it was not."""

    curves: Mapping[str, Curve]
    """Columns of the training curves, NaN where empty."""
    initial_z_spread: float | None
    """Standard deviation of the generator's output across z before training, mean over pixels, in units of [-1, 1]."""
    initial_grad_norm_g_first: float | None
    """Gradient norm at the generator's first block before training."""
    trajectory: Sequence[tuple[float, float]]
    """kimg and Fréchet distance of each kept generator; comparable among each other only."""
    distance: float | None
    """Fréchet distance of the samples from the real images; None without a feature extractor."""
    floor: float | None
    """The same of real images that were not trained on."""
    diversity: float | None
    """sqrt(trace cov(samples) / trace cov(real)), in the extractor's features."""
    real_variance: float | None = None
    """trace cov(real): the distance of one constant image at the real images' mean."""
    equal_counts: float | None = None
    """The distance of as many samples as the floor has images, if it has fewer: more images make a smaller distance."""


@dataclass(frozen=True)
class Diagnosis:
    """What became of a run, and why it is said."""

    verdict: str
    """`converged`, `still improving`, `stopped too early`, `stalled`, `mode collapse`, `discriminator wins`,
    `generator collapsed`, `diverged`, or `not trained here`."""
    rule: str
    """The rule that gave the verdict, with its thresholds, in a sentence."""
    evidence: tuple[str, ...]
    """The measurements that it rests on."""
    explanation: str
    """What happened and why."""
    advice: str
    """What to try next, in terms of params.yaml."""


NOT_TRAINED = Diagnosis(
    verdict="not trained here",
    rule="What was scored comes from elsewhere, so there is no training to judge.",
    evidence=(),
    explanation="A generator's file or a folder of images was scored as it is.",
    advice="Read the scores; to train again, set sample.generator and evaluate.samples back to null.",
)
"""The verdict on samples that this run did not train a generator for."""


def diagnose(run: Run) -> Diagnosis:
    """The verdict of the first rule that applies; the last rule always does."""
    facts = _measure(run)
    for rule in RULES:
        diagnosis = rule(facts)
        if diagnosis is not None:
            return diagnosis
    return _converged(facts)


@dataclass(frozen=True)
class _Facts:
    """The run in single numbers, NaN where not measured; those of the curves are medians over their end."""

    steps: float
    kimg: float
    """Thousands of real images shown."""
    broken: tuple[str, ...]
    """Columns whose losses or gradients are no numbers."""
    start_spread: float
    start_gradient: float
    spread: float
    peak_spread: float
    """Its highest after the warm-up, smoothed."""
    d_real: float
    d_fake: float
    saturated: float
    loss_d: float
    never_negative: bool
    """Whether the discriminator's loss is one that a perfect discriminator brings to zero."""
    exploded: tuple[str, ...]
    """Losses and gradients far above what they were, in words."""
    distance: float
    floor: float
    diversity: float
    variance: float
    equal_counts: float
    first: float
    best: float
    best_kimg: float
    last: float
    """Distances of the trajectory."""
    points: int
    fell: float
    """Fall of the distance from the third to the last quarter of training, as a share."""
    falls_on: float
    """The same within the last quarter, per quarter."""

    @property
    def short(self) -> bool:
        return self.steps < SHORT_STEPS and not self.kimg >= SHORT_KIMG

    @property
    def floors(self) -> float:
        return self.distance / self.floor if self.floor > 0 else math.nan

    @property
    def variances(self) -> float:
        return self.distance / self.variance if self.variance > 0 else math.nan

    @property
    def far(self) -> bool:
        return self.variances > FAR_VARIANCES or (math.isnan(self.variances) and self.floors > FAR_FLOORS)

    @property
    def near(self) -> bool:
        return self.variances <= FAR_VARIANCES or (math.isnan(self.variances) and self.floors <= FAR_FLOORS)

    @property
    def holds(self) -> bool:
        return self.points > 1 and self.last <= HOLDS_TIMES * self.best

    @property
    def falling(self) -> bool:
        # A slow fall near the real images is the end of one; far from them it still leads somewhere.
        falls = self.fell > (FALLING_ON if self.far else STILL_FALLING) and self.falls_on > FALLING_ON
        return falls and self.last <= IMPROVED * self.first

    @property
    def rose(self) -> bool:
        floor = self.floor if self.floor > 0 else 0.0
        return self.last > ROSE_TIMES * self.best and self.last - self.best > ROSE_FLOORS * floor

    @property
    def learns(self) -> bool:
        """Whether the samples, whatever the discriminator says, are good or were getting better."""
        return not self.rose and (self.near or self.falling)

    @property
    def dead_from_the_start(self) -> bool:
        return self.start_spread < SPREAD_ALARM


def _measure(run: Run) -> _Facts:
    curves = {name: np.asarray(column, dtype=np.float64) for name, column in run.curves.items()}
    loss_d = curves.get("loss_d", np.empty(0))
    numbers = [name for name in ("loss_d", "loss_g", "grad_norm_d", "grad_norm_g") if name in curves]
    trajectory = np.array(sorted(point for point in run.trajectory if np.isfinite(point).all())).reshape(-1, 2)
    kimg, distances = trajectory.T
    fell, falls_on = _falls(kimg, distances)
    finite_loss = loss_d[np.isfinite(loss_d)]
    steps, seen = curves.get("step", np.empty(0)), curves.get("kimg", np.empty(0))
    return _Facts(
        steps=float(steps[-1]) if len(steps) else 0.0,
        kimg=float(seen[-1]) if len(seen) else math.nan,
        # A step has always a discriminator's loss; the generator's terms may be empty where it steps seldom.
        broken=tuple(
            name for name in numbers if np.isinf(curves[name]).any() or (name == "loss_d" and _ends_nan(loss_d))
        ),
        start_spread=_known(run.initial_z_spread),
        start_gradient=_known(run.initial_grad_norm_g_first),
        spread=_at_end(curves.get("z_spread")),
        peak_spread=_peak(curves.get("z_spread")),
        d_real=_at_end(curves.get("d_real")),
        d_fake=_at_end(curves.get("d_fake_before")),
        saturated=_at_end(curves.get("saturated")),
        loss_d=_at_end(loss_d),
        never_negative=bool((finite_loss >= 0).all()),
        exploded=tuple(words for name in numbers if (words := _explosion(name, np.abs(curves[name])))),
        distance=_known(run.distance),
        floor=_known(run.floor),
        diversity=_known(run.diversity),
        variance=_known(run.real_variance),
        equal_counts=_known(run.equal_counts),
        first=float(distances[0]) if len(distances) else math.nan,
        best=float(distances.min()) if len(distances) else math.nan,
        best_kimg=float(kimg[distances.argmin()]) if len(distances) else math.nan,
        last=float(distances[-1]) if len(distances) else math.nan,
        points=len(distances),
        fell=fell,
        falls_on=falls_on,
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _window(length: int) -> int:
    return min(length, max(MIN_ROWS, math.ceil(END * length)))


def _median(values: Curve) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _at_end(values: Curve | None) -> float:
    """The median of the last rows that hold a number."""
    if values is None:
        return math.nan
    finite = values[np.isfinite(values)]
    return _median(finite[len(finite) - _window(len(finite)) :])


def _ends_nan(values: Curve) -> bool:
    return len(values) > 0 and not np.isfinite(values[len(values) - _window(len(values)) :]).any()


def _peak(values: Curve | None) -> float:
    """The highest median of as many rows as `_at_end` takes, after the warm-up."""
    if values is None:
        return math.nan
    finite = values[np.isfinite(values)]
    finite = finite[int(WARM_UP * len(finite)) :]
    if not len(finite):
        return math.nan
    windows = np.lib.stride_tricks.sliding_window_view(finite, _window(len(finite)))
    return float(np.median(windows, axis=1).max())


def _explosion(name: str, sizes: Curve) -> str:
    end, before = _at_end(sizes), _median(sizes[: len(sizes) // 2])
    if end > EXPLODED and end > EXPLODED_TIMES * before:
        return f"{NAMES[name]} {end:.3g} at the end, {before:.3g} over the first half of training"
    return ""


NAMES = {
    "loss_d": "size of the discriminator's loss",
    "loss_g": "size of the generator's loss",
    "grad_norm_d": "discriminator's gradient norm",
    "grad_norm_g": "generator's gradient norm",
}


def _falls(kimg: Curve, distances: Curve) -> tuple[float, float]:
    """By what share the distance fell from the third to the last quarter of training, and per quarter within the last.

    The first compares medians, the second is a straight line through the logarithms of the last three points or more:
    noise alone seldom makes both fall. NaN for fewer than two points.
    """
    if len(kimg) < 2 or kimg[-1] <= 0:
        return math.nan, math.nan
    quarter = kimg[-1] / 4
    logs = np.log(np.maximum(distances, np.finfo(np.float64).tiny))
    late = min(int(np.searchsorted(kimg, 3.001 * quarter)), len(kimg) - 1)
    early = min(int(np.searchsorted(kimg, 2.001 * quarter)), late - 1)
    blocks = (np.median(logs[late:]) - np.median(logs[early:late])) / (kimg[late:].mean() - kimg[early:late].mean())
    start = max(0, min(late, len(kimg) - 3))
    slope = np.polyfit(kimg[start:] - kimg[-1], logs[start:], 1)[0]
    return 1 - math.exp(min(0.0, blocks) * quarter), 1 - math.exp(min(0.0, slope) * quarter)


# Evidence: what was measured, in short phrases. A phrase of a number that is NaN is left out.


def _said(*phrases: str) -> tuple[str, ...]:
    return tuple(phrase for phrase in phrases if phrase)


def _spread_words(facts: _Facts) -> str:
    alarm = f"alarm below {SPREAD_ALARM:g}"
    start, end = facts.start_spread, facts.spread
    if math.isnan(end):
        return "" if math.isnan(start) else f"output spread across z {start:.2g} at initialisation ({alarm})"
    if math.isnan(start):
        return f"output spread across z {end:.2g} at the end ({alarm})"
    return f"output spread across z {start:.2g} at initialisation ({alarm}), {end:.2g} at the end"


def _gradient_words(facts: _Facts) -> str:
    if math.isnan(facts.start_gradient):
        return ""
    return f"gradient norm at the generator's first block {facts.start_gradient:.2g} at initialisation"


def _discriminator_words(facts: _Facts) -> str:
    words = []
    if not math.isnan(facts.loss_d):
        words.append(f"discriminator loss {facts.loss_d:.3g}")
    if not math.isnan(facts.d_real) and not math.isnan(facts.d_fake):
        words.append(f"D(x) {facts.d_real:.2f}, D(G(z)) {facts.d_fake:.2f}")
    if not math.isnan(facts.saturated):
        words.append(f"{_percent(facts.saturated)} of its outputs surer than 0.993")
    return ", ".join(words) + " at the end" if words else ""


def _distance_words(facts: _Facts) -> str:
    if math.isnan(facts.distance):
        return "no feature extractor: judged by the curves alone"
    words = [f"Fréchet distance {_number(facts.distance)}"]
    if not math.isnan(facts.variances):
        words.append(f"{_times(facts.variances)} times that of one average real image (their variance)")
    if not math.isnan(facts.equal_counts) and facts.floor > 0:
        times = _times(facts.equal_counts / facts.floor)
        words.append(
            f"of as many samples as held-out real images {_number(facts.equal_counts)}, {times} times the "
            f"{_number(facts.floor)} of these"
        )
    elif not math.isnan(facts.floors):
        words.append(f"{_times(facts.floors)} times the {_number(facts.floor)} of held-out real images")
    return ", ".join(words[:2]) + "".join(f"; {more}" for more in words[2:])


def _course_words(facts: _Facts) -> str:
    if facts.points < 2:
        return "" if math.isnan(facts.distance) else "no course of the distance over training"
    course = f"distance of the kept generators {_number(facts.first)} at first, {_number(facts.last)} at last"
    if facts.last > facts.best:
        course += f", {_number(facts.best)} at best ({facts.best_kimg:.3g} kimg)"
    return course


def _fall_words(facts: _Facts) -> str:
    if math.isnan(facts.fell):
        return ""
    if facts.fell <= 0 and facts.falls_on <= 0:
        return "it did not fall in the last quarter of training"
    return (
        f"it fell by {_percent(facts.fell)} from the third to the last quarter of training, and by "
        f"{_percent(facts.falls_on)} within the last"
    )


def _diversity_words(facts: _Facts) -> str:
    return "" if math.isnan(facts.diversity) else f"feature diversity {facts.diversity:.2f} (real images: 1)"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


FAR = f"{FAR_VARIANCES:g} times the real images' variance (unknown: {FAR_FLOORS:g} floors)"

REPAIR = (
    "Repair the signal in the generator first: generator.block=after where generator.name is cspup, otherwise "
    "generator.init=fan-in or a larger generator.init_std. Learning rates will not help before that."
)
HOLD_BACK = (
    "Hold the discriminator back: train.r1_gamma=1 or more, discriminator.norm=spectral, or train.lr_d below "
    "train.lr_g. With few images it may know them by heart: train.augment=[translation,cutout]."
)

# The rules, in their order.


def _no_numbers(facts: _Facts) -> Diagnosis | None:
    if not facts.broken:
        return None
    return Diagnosis(
        "diverged",
        "A loss or a gradient norm is infinite, or the discriminator's loss ends as no number.",
        tuple(f"{NAMES[name]} is not finite" for name in facts.broken),
        "The weights ran away until the arithmetic broke down: one network's steps were too large for the slope that "
        "the other showed it. Nothing after that point means anything.",
        "Lower train.lr_g and train.lr_d; train.r1_gamma above 0 keeps the discriminator's slope small.",
    )


def _generator_collapsed(facts: _Facts) -> Diagnosis | None:
    dead = facts.spread < SPREAD_ALARM and not facts.diversity >= DIVERSITY_LOW
    dead = dead or (facts.spread < SPREAD_LOW and facts.diversity < DIVERSITY_FAINT)
    lost = facts.spread < SPREAD_LOST * facts.peak_spread
    one_image = math.isnan(facts.spread) and facts.diversity < DIVERSITY_NONE and not facts.short
    if not (dead or lost or one_image):
        return None
    rule = (
        f"The spread of the generator's output across z ends below {SPREAD_ALARM:g} (and its samples are not diverse "
        f"in features), or below {SPREAD_LOW:g} with a feature diversity below {DIVERSITY_FAINT:g}, or below "
        f"{_percent(SPREAD_LOST)} of its highest; where the spread was not recorded, feature diversity is below "
        f"{DIVERSITY_NONE:g}."
    )
    evidence = _said(
        _spread_words(facts),
        f"highest spread in training {facts.peak_spread:.2g}" if lost else "",
        _gradient_words(facts),
        _discriminator_words(facts),
        _diversity_words(facts),
    )
    if facts.dead_from_the_start and not lost:
        return Diagnosis(
            "generator collapsed",
            rule,
            evidence,
            "The generator draws the same image whatever z is, and it began so: its layers pass almost nothing of z "
            "on, and almost no gradient back to the first block. The discriminator needs to know that one image only, "
            "so it wins at once, and the generator cannot learn its way out.",
            REPAIR,
        )
    return Diagnosis(
        "generator collapsed",
        rule,
        evidence,
        "The generator came to draw the same image whatever z is. It could vary at first and lost that in training, as "
        "happens when it moves all its outputs to the one place where the discriminator is weakest just then.",
        "Smooth the discriminator and slow the race: train.r1_gamma=1 or more, discriminator.norm=spectral, then a "
        "lower train.lr_g.",
    )


def _discriminator_wins(facts: _Facts) -> Diagnosis | None:
    gap = facts.d_real - facts.d_fake
    certain = gap >= GAP_WON and facts.saturated >= SATURATED
    ahead = facts.far and gap >= GAP_AHEAD
    won = certain or facts.loss_d <= LOSS_WON or ahead
    if facts.learns or not facts.never_negative or not won:
        return None
    return Diagnosis(
        "discriminator wins",
        f"The discriminator tells nearly all images apart (D(x) at least {GAP_WON:g} above D(G(z)) and "
        f"{_percent(SATURATED)} of its outputs surer than 0.993; or a loss of at most {LOSS_WON:g}; or D(x) at least "
        f"{GAP_AHEAD:g} above D(G(z)) with samples farther than {FAR}), and the Fréchet distance, if "
        "measured, neither lies below that nor falls. Not asked of losses that go below zero.",
        _said(
            _discriminator_words(facts),
            _distance_words(facts),
            _course_words(facts),
            _spread_words(facts),
            _diversity_words(facts),
        ),
        "The discriminator knows every image before the generator has learned to draw one. Its answers no longer "
        "depend on what the generator changes, so there is little left to learn from them.",
        REPAIR if facts.dead_from_the_start and facts.spread < SPREAD_LOW else HOLD_BACK,
    )


def _diverged(facts: _Facts) -> Diagnosis | None:
    exploded = facts.exploded if not facts.holds else ()
    if not exploded and not facts.rose:
        return None
    return Diagnosis(
        "diverged",
        f"The Fréchet distance ends at more than {ROSE_TIMES:g} times its best, and {ROSE_FLOORS:g} floors above it; "
        f"or a gradient norm or loss ends above {EXPLODED:g} and {EXPLODED_TIMES:g} times its median of the first "
        f"half, while the distance is not known to hold within {HOLDS_TIMES:g} times its best.",
        _said(_course_words(facts), *exploded, _distance_words(facts), _discriminator_words(facts)),
        "Training went well up to a point and then came apart: the networks pushed each other around in ever larger "
        "circles instead of settling. Alternating steps do so when nothing damps them.",
        "Damp it: train.r1_gamma=1 or more and train.lr_decay_g=cosine, train.lr_decay_d=cosine; then lower train.lr_g "
        "and train.lr_d."
        + (f" The kept generator at {facts.best_kimg:.3g} kimg is better than the last." if facts.rose else ""),
    )


def _still_improving(facts: _Facts) -> Diagnosis | None:
    if not facts.falling or facts.floors <= CLOSE_FLOORS:
        return None
    return Diagnosis(
        "still improving",
        f"The Fréchet distance fell by more than {_percent(STILL_FALLING)} from the third to the last quarter of "
        f"training ({_percent(FALLING_ON)} where it is above {FAR}), goes on falling by more than "
        f"{_percent(FALLING_ON)} within the last, ends at most {IMPROVED:g} times as large as it was first, and is "
        f"above {CLOSE_FLOORS:g} times that of real images.",
        _said(
            _course_words(facts),
            _fall_words(facts),
            _distance_words(facts),
            _diversity_words(facts),
            _spread_words(facts),
        ),
        "The samples were still getting better when training stopped. Nothing is wrong; it was too early.",
        "Train longer: double train.epochs.",
    )


def _stopped_too_early(facts: _Facts) -> Diagnosis | None:
    if not facts.short or (facts.near and facts.points > 1):
        return None
    return Diagnosis(
        "stopped too early",
        f"Training ended before step {SHORT_STEPS:,} and {SHORT_KIMG:g} kimg, and the samples are not known to be near "
        "the real images and to stay so.",
        _said(
            f"{facts.steps:,.0f} steps",
            _course_words(facts),
            _fall_words(facts),
            _distance_words(facts),
            _diversity_words(facts),
            _spread_words(facts),
        ),
        "Training stopped before anything could settle: both networks have hardly met. None of the alarms was raised, "
        "but so short a run proves nothing either.",
        "Train longer: raise train.epochs until there are a few thousand steps.",
    )


def _mode_collapse(facts: _Facts) -> Diagnosis | None:
    low = facts.diversity < DIVERSITY_LOW
    shrunk = math.isnan(facts.diversity) and facts.spread < SPREAD_SHRUNK * facts.peak_spread
    if not low and not shrunk:
        return None
    return Diagnosis(
        "mode collapse",
        f"Feature diversity is below {DIVERSITY_LOW:g}; where it was not measured, the output's spread across z ends "
        f"below {_percent(SPREAD_SHRUNK)} of its highest.",
        _said(
            _diversity_words(facts),
            _spread_words(facts),
            f"highest spread in training {facts.peak_spread:.2g}" if shrunk else "",
            _distance_words(facts),
            _course_words(facts),
        ),
        "The generator's images differ in their pixels but not in what they show: it covers a few of the real images' "
        "kinds and leaves the rest out. The discriminator judges images one by one, so it cannot tell the generator "
        "what is missing.",
        "train.loss=relativistic with train.r1_gamma and train.r2_gamma (and discriminator.norm=none) compares each "
        "fake with a real image and covers most modes; with few images, train.augment=[translation,cutout].",
    )


def _stalled(facts: _Facts) -> Diagnosis | None:
    if not facts.far:
        return None
    return Diagnosis(
        "stalled",
        f"No other rule applies, and the Fréchet distance is above {FAR}.",
        _said(
            _distance_words(facts),
            _course_words(facts),
            _fall_words(facts),
            _diversity_words(facts),
            _discriminator_words(facts),
        ),
        "Training has come to rest far from the real images: neither network is beaten, and neither gets any better. "
        "Either they are too small for these images, or they learn too slowly, or whole kinds of images are left out.",
        "Look at the samples first. Coarse or blurred: a larger generator.base and discriminator.base. Hardly "
        "changing: a higher train.lr_g and train.lr_d. Too much alike: train.loss=relativistic with train.r1_gamma and "
        "train.r2_gamma.",
    )


def _converged(facts: _Facts) -> Diagnosis:
    evidence = _said(
        _distance_words(facts),
        _course_words(facts),
        _fall_words(facts),
        _diversity_words(facts),
        _spread_words(facts),
        _discriminator_words(facts),
    )
    rule = (
        f"No alarm was raised: the losses and the distance hold, the distance no longer falls by "
        f"{_percent(STILL_FALLING)} a quarter of training and is at most {FAR}, and feature diversity "
        f"is at least {DIVERSITY_LOW:g} (as far as these were measured)."
    )
    if math.isnan(facts.distance):
        return Diagnosis(
            "converged",
            rule,
            evidence,
            "Neither network beats the other and the images vary with z. Whether they are good the curves cannot tell: "
            "look at the samples.",
            "Measure the samples: evaluate.extractor=squeezenet1_1, or classifier for labelled images.",
        )
    return Diagnosis(
        "converged",
        rule,
        evidence,
        "The generator and the discriminator keep each other in balance, and the samples are as close to the real "
        "images as this set-up brings them. More of the same training would change little.",
        "To get closer, change the set-up, not the length: a larger generator.base and discriminator.base, or "
        "train.ema_kimg for a steadier generator."
        if facts.points > 1
        else "Score the kept generators too, to see that nothing more was to come: train.keep and evaluate.trajectory "
        "above 0.",
    )


RULES: tuple[Callable[[_Facts], Diagnosis | None], ...] = (
    _no_numbers,
    _generator_collapsed,
    _discriminator_wins,
    _diverged,
    _still_improving,
    _stopped_too_early,
    _mode_collapse,
    _stalled,
)
"""In the order in which they are tried."""
