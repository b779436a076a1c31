"""Statistics against worked examples, rliable's values, identities and simulated truth."""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maxent_onpolicy.evaluation import resampling
from maxent_onpolicy.evaluation import statistics as stats

RLIABLE = json.loads((Path(__file__).parent / "rliable_values.json").read_text())
RLIABLE_SCORES = {name: np.array(values) for name, values in RLIABLE["scores"].items()}
POINTS = {"iqm": stats.iqm, "median": stats.median, "mean": stats.mean, "optimality_gap": stats.optimality_gap}


def rng(seed=0):
    return np.random.default_rng(seed)


# --- golden values ---------------------------------------------------------------------------------------------------


def test_point_estimates_worked_by_hand():
    scores = np.array([[0.0, 1.0], [0.2, 1.4], [0.4, 0.6], [0.6, 3.0]])
    # pooled and sorted: 0 .2 .4 .6 .6 1 1.4 3; two are cut at each end
    assert stats.iqm(scores) == pytest.approx((0.4 + 0.6 + 0.6 + 1.0) / 4)
    # task means .3 and 1.5
    assert stats.mean(scores) == pytest.approx(0.9)
    assert stats.median(scores) == pytest.approx(0.9)
    # shortfalls below 1: 1 .8 .6 .4 and 0 0 .4 0
    assert stats.optimality_gap(scores) == pytest.approx(3.2 / 8)
    assert stats.optimality_gap(scores, target=2.0) == pytest.approx((2 + 1.8 + 1.6 + 1.4 + 1 + 0.6 + 1.4 + 0) / 8)


def test_unequal_numbers_of_runs_weigh_tasks_equally():
    scores = [[0.0, 1.0], [2.0, 2.0, 2.0, 6.0]]
    assert stats.mean(scores) == pytest.approx((0.5 + 3.0) / 2)
    assert stats.median(scores) == pytest.approx((0.5 + 3.0) / 2)
    assert stats.optimality_gap(scores) == pytest.approx((0.5 + 0.0) / 2)
    # sorted 0 1 2 2 2 6 with weights 1/4 1/4 1/8 1/8 1/8 1/8: 0 is cut below; 6 and one 2 are cut above
    assert stats.iqm(scores) == pytest.approx((1 / 4 * 1 + 2 / 8 * 2) / (1 / 4 + 2 / 8))
    # 0 3 with weight 1/4 and 6 with weight 1/2: 0 is cut below, half of the 6 above
    assert stats.iqm([[0.0, 3.0], [6.0]]) == pytest.approx((1 / 4 * 3 + 1 / 4 * 6) / (1 / 2))


def test_weighted_iqm_of_repeated_runs_is_the_iqm():
    scores = rng().normal(size=(8, 3))
    repeated = [scores[:, 0].repeat(2), scores[:, 1], scores[:, 2].repeat(3)]
    assert stats.iqm(repeated) == pytest.approx(stats.iqm(scores), abs=1e-12)


def test_probability_of_improvement_worked_by_hand():
    x, y = [[1.0, 3.0]], [[0.0, 1.0, 2.0, 4.0]]
    # 1 beats 0, ties 1; 3 beats 0, 1, 2: (1 + 1/2 + 3) of 8 pairs
    assert stats.probability_of_improvement(x, y) == pytest.approx(4.5 / 8)
    assert stats.improvement_interval(x, y, rng=rng()).value == pytest.approx(4.5 / 8)


def test_performance_profile_worked_by_hand():
    profile = stats.performance_profile([[0.0, 0.5], [1.0, 1.0, 0.2, 0.2]], [-1, 0.1, 0.5, 1.0], rng=rng())
    assert profile.value == pytest.approx([1.0, (0.5 + 1.0) / 2, (0.0 + 0.5) / 2, 0.0])
    assert profile.x == pytest.approx([-1, 0.1, 0.5, 1.0])
    assert (profile.low <= profile.value).all()
    assert (profile.value <= profile.high).all()


def test_interval_of_two_runs_worked_by_hand():
    # Resamples of {0, 1} have mean 0, 1/2 or 1 with chances 1/4, 1/2, 1/4: 95 % takes both ends, 40 % only the middle.
    scores = np.array([[0.0], [1.0]])
    assert stats.aggregate(scores, rng=rng())["mean"] == (0.5, 0.0, 1.0)
    assert stats.aggregate(scores, rng=rng(), confidence=0.4)["mean"] == (0.5, 0.5, 0.5)


# --- rliable ---------------------------------------------------------------------------------------------------------

# Two Monte-Carlo errors meet here: that of a 2.5 % quantile from 50,000 resamples, ours and rliable's.
MONTE_CARLO = 0.005


@pytest.mark.parametrize("name", RLIABLE_SCORES)
def test_aggregates_agree_with_rliable(name):
    estimates = stats.aggregate(RLIABLE_SCORES[name], rng=rng())
    for metric, expected in RLIABLE["aggregates"][name].items():
        assert POINTS[metric](RLIABLE_SCORES[name]) == pytest.approx(expected["value"][0], abs=1e-12)
        value, low, high = estimates[metric]
        assert value == pytest.approx(expected["value"][0], abs=1e-12)
        assert low == pytest.approx(expected["low"][0], abs=MONTE_CARLO)
        assert high == pytest.approx(expected["high"][0], abs=MONTE_CARLO)


@pytest.mark.parametrize("case", RLIABLE["improvement"], ids=lambda case: f"{case['x']}-{case['y']}")
def test_probability_of_improvement_agrees_with_rliable(case):
    x, y = RLIABLE_SCORES[case["x"]], RLIABLE_SCORES[case["y"]]
    value, low, high = stats.improvement_interval(x, y, rng=rng())
    assert stats.probability_of_improvement(x, y) == pytest.approx(case["value"][0], abs=1e-12)
    assert value == pytest.approx(case["value"][0], abs=1e-12)
    assert low == pytest.approx(case["low"][0], abs=MONTE_CARLO)
    assert high == pytest.approx(case["high"][0], abs=MONTE_CARLO)


def test_performance_profile_agrees_with_rliable():
    expected = RLIABLE["profile"]
    profile = stats.performance_profile(
        RLIABLE_SCORES[expected["scores"]], expected["thresholds"], rng=rng(), resamples=50_000
    )
    assert profile.value == pytest.approx(expected["value"], abs=1e-12)
    one_run = 1 / 50 + 1e-9  # shares move in steps of a run, and a quantile can sit on the edge of a step
    assert profile.low == pytest.approx(expected["low"], abs=one_run)
    assert profile.high == pytest.approx(expected["high"], abs=one_run)


def test_pointwise_sample_efficiency_agrees_with_rliable():
    # rliable draws checkpoints independently; at a single checkpoint that makes no difference
    x, expected = RLIABLE_SCORES["ten_by_five"], RLIABLE["efficiency"]
    curves = np.stack([0.3 * x, 0.7 * x, x**2], axis=-1)
    band = stats.sample_efficiency(curves, [1, 2, 3], rng=rng(), resamples=50_000)
    assert band.value == pytest.approx(expected["value"], abs=1e-12)
    assert band.low == pytest.approx(expected["low"], abs=2 * MONTE_CARLO)  # the squared scores reach 9
    assert band.high == pytest.approx(expected["high"], abs=2 * MONTE_CARLO)


# --- identities ------------------------------------------------------------------------------------------------------

score_arrays = arrays(
    np.float64,
    st.tuples(st.integers(1, 9), st.integers(1, 4)),
    elements=st.floats(-100, 100, allow_subnormal=False).map(lambda value: round(value, 3)),
)
ragged_scores = st.lists(
    st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(score_arrays | ragged_scores, st.floats(0.1, 10), st.floats(-50, 50))
def test_location_statistics_follow_scale_and_shift(scores, scale, shift):
    moved = [scale * np.asarray(task) + shift for task in (scores.T if isinstance(scores, np.ndarray) else scores)]
    for statistic in (stats.iqm, stats.mean, stats.median):
        assert statistic(moved) == pytest.approx(scale * statistic(scores) + shift, abs=1e-6)


@given(score_arrays)
def test_a_list_of_tasks_and_a_matrix_are_the_same_scores(scores):
    for statistic in POINTS.values():
        assert statistic(list(scores.T)) == statistic(scores)


@given(ragged_scores)
def test_statistics_stay_within_the_scores(scores):
    low, high = min(map(min, scores)), max(map(max, scores))
    for statistic in (stats.iqm, stats.mean, stats.median):
        assert low - 1e-9 <= statistic(scores) <= high + 1e-9
    assert stats.optimality_gap(scores, target=high) == pytest.approx(high - stats.mean(scores), abs=1e-9)


@given(ragged_scores, st.randoms(use_true_random=False))
def test_the_order_of_runs_and_tasks_does_not_matter(scores, random):
    shuffled = [random.sample(task, len(task)) for task in random.sample(scores, len(scores))]
    for statistic in POINTS.values():
        assert statistic(shuffled) == pytest.approx(statistic(scores), abs=1e-9)


@given(ragged_scores, st.randoms(use_true_random=False))
def test_improvement_over_the_other_adds_to_one(scores, random):
    other = [[round(random.uniform(-100, 100), 0) for _ in range(random.randint(1, 5))] for _ in scores]
    forward, backward = (stats.probability_of_improvement(*pair) for pair in ((scores, other), (other, scores)))
    assert forward + backward == pytest.approx(1)
    assert stats.probability_of_improvement(scores, scores) == pytest.approx(0.5)


@given(score_arrays)
@settings(max_examples=25)
def test_intervals_hold_the_extremes_of_the_data_and_repeat(scores):
    first = stats.aggregate(scores, rng=rng(3), resamples=50)
    assert np.array_equal(list(first.values()), list(stats.aggregate(scores, rng=rng(3), resamples=50).values()), True)
    if len(scores) > 1:
        for name in ("iqm", "mean", "median"):
            assert scores.min() - 1e-9 <= first[name].low <= first[name].high <= scores.max() + 1e-9
    else:
        assert all(np.isnan(estimate.low) and np.isnan(estimate.high) for estimate in first.values())


@given(score_arrays)
@settings(max_examples=25)
def test_profiles_never_rise(scores):
    profile = stats.performance_profile(scores, np.linspace(-110, 110, 23), rng=rng(), resamples=20)
    assert profile.value[0] == pytest.approx(1)
    assert profile.value[-1] == 0
    assert (np.diff(profile.value) <= 1e-12).all()


def test_profile_integrates_to_the_mean():
    scores = rng().uniform(size=(6, 3))
    profile = stats.performance_profile(scores, np.linspace(0, 1, 20_001), rng=rng(), resamples=2)
    assert profile.value.mean() == pytest.approx(stats.mean(scores), abs=1e-3)


# --- resampling ------------------------------------------------------------------------------------------------------


def test_whole_runs_are_resampled_not_checkpoints():
    # Every curve is flat, so a resample of whole runs is flat and the band has the same ends at every checkpoint.
    curves = np.repeat(rng().normal(size=(10, 3, 1)), 8, axis=2)
    for statistic in stats.STATISTICS:
        band = stats.sample_efficiency(curves, np.arange(8), rng=rng(), statistic=statistic, resamples=200)
        assert np.ptp(band.low) == pytest.approx(0, abs=1e-12)
        assert np.ptp(band.high) == pytest.approx(0, abs=1e-12)
        assert band.low[0] < band.value[0] < band.high[0]


def test_a_statistic_over_time_keeps_the_dependence_between_checkpoints():
    # Mirror-image checkpoints: the sum over time is constant for whole runs, and would vary if they were drawn apart.
    first = rng().normal(size=(10, 2))
    curves = np.stack([first, -first], axis=-1)
    total = stats.sample_efficiency(
        curves, [0, 1], rng=rng(), statistic=lambda tasks: sum(t.mean(-1) for t in tasks).sum(-1, keepdims=True)
    )
    assert total.low == pytest.approx(0, abs=1e-12)
    assert total.high == pytest.approx(0, abs=1e-12)


def test_resampling_is_stratified_by_task():
    # No task varies, so nothing does, however far apart the tasks lie.
    scores = np.tile([0.0, 100.0], (5, 1))
    assert stats.aggregate(scores, rng=rng())["mean"] == (50.0, 50.0, 50.0)
    assert stats.improvement_interval(scores, scores - 1, rng=rng()) == (1.0, 1.0, 1.0)


def test_chunks_do_not_change_the_distribution(monkeypatch):
    scores = rng().normal(size=(10, 4))
    whole = stats.aggregate(scores, rng=rng(1))
    monkeypatch.setattr(resampling, "_CHUNK", 1000)
    pieces = stats.aggregate(scores, rng=rng(1))
    for name in stats.STATISTICS:
        assert np.allclose(whole[name], pieces[name], atol=0.01)


def test_unequal_runs_are_resampled_with_the_statistic_of_the_point_estimate():
    scores = [rng(task).normal(task, 1, size=runs) for task, runs in enumerate((3, 8, 12))]
    for name, (value, low, high) in stats.aggregate(scores, rng=rng()).items():
        assert value == POINTS[name](scores)
        assert low < value < high


def test_your_own_statistic():
    scores = rng().normal(size=(10, 4))
    found = stats.aggregate(scores, rng=rng(), statistics={"best": lambda tasks: np.max([t.max(-1) for t in tasks], 0)})
    assert found["best"].value == scores.max()
    assert found["best"].low < found["best"].high == scores.max()


@pytest.mark.parametrize("scores", [np.array([[1.0, 2.0]]), [[1.0, 2.0, 3.0], [1.0]]])
def test_a_single_run_has_no_interval(scores):
    for estimate in stats.aggregate(scores, rng=rng()).values():
        assert np.isnan([estimate.low, estimate.high]).all()
        assert np.isfinite(estimate.value)
    two = [[1.0, 2.0]] * len(stats.as_tasks(scores))
    for pair in ((scores, two), (two, scores)):
        assert np.isnan(stats.improvement_interval(*pair, rng=rng()).low)
    assert np.isnan(stats.performance_profile(scores, [0.0, 1.0], rng=rng()).high).all()


# --- coverage --------------------------------------------------------------------------------------------------------


def coverage(draw, truth, statistic, trials, resamples=1000):
    """Share of nominal 95 % intervals that contain ``truth``."""
    source = rng(7)
    held = 0
    for _ in range(trials):
        _, low, high = stats.aggregate(draw(source), rng=source, statistics=[statistic], resamples=resamples)[statistic]
        held += low <= truth <= high
    return held / trials


normal = partial(np.random.Generator.normal, loc=1.0, scale=0.5)


def test_intervals_of_ten_seeds_cover_the_truth():
    # The bootstrap's variance lacks the factor n / (n - 1): with ten runs 95 % nominal is 93.7 % at best.
    assert coverage(lambda source: normal(source, size=(10, 10)), 1.0, "mean", 700) == pytest.approx(0.937, abs=0.03)
    assert coverage(lambda source: normal(source, size=(10, 10)), 1.0, "iqm", 700) == pytest.approx(0.95, abs=0.03)


def test_intervals_of_three_seeds_are_too_narrow():
    # What the report's notice says: with three runs the nominal 95 % interval of one environment holds about 75 %.
    assert coverage(lambda source: normal(source, size=(3, 1)), 1.0, "mean", 1500) == pytest.approx(0.75, abs=0.04)


@pytest.mark.slow
def test_intervals_of_skewed_scores_cover_the_truth():
    tasks = np.array([0.5, 1.0, 2.0, 4.0])
    truth = stats.iqm(rng(11).gamma(2.0, tasks, size=(1_000_000, 4)))
    found = coverage(lambda source: source.gamma(2.0, tasks, size=(50, 4)), truth, "iqm", 3000, resamples=2000)
    assert found == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
def test_improvement_intervals_cover_the_truth():
    # X - Y is normal with mean 0.5 and standard deviation sqrt(2): P(X > Y) = Phi(0.5 / sqrt 2) = 0.6382
    source, held, trials = rng(5), 0, 1500
    for _ in range(trials):
        x, y = source.normal(0.5, 1, size=(20, 5)), source.normal(0, 1, size=(20, 5))
        _, low, high = stats.improvement_interval(x, y, rng=source, resamples=1000)
        held += low <= 0.6381632 <= high
    assert held / trials == pytest.approx(0.945, abs=0.02)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros(3), r"`scores` must be an array \[runs, tasks\].*shape \(3,\)"),
        (np.zeros((2, 2, 2)), r"got an array of shape \(2, 2, 2\)"),
        ([], "at least one task, got none"),
        (np.zeros((0, 2)), "at least one run a task, got none for task 0"),
        ([[1.0], []], "got none for task 1"),
        ([1.0, 2.0], r"got shape \(\) for task 0"),
        (3.0, "got float"),
        ([["a"]], "got list"),
        ([[1.0], [1.0, np.nan]], "must be finite, got NaN or infinity in run 1 of task 1"),
        (np.array([[1.0, np.inf]]), "run 0 of task 1"),
    ],
)
def test_bad_scores_are_named(scores, message):
    with pytest.raises(ValueError, match=message):
        stats.iqm(scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rng": 0}, "`rng` must be a numpy.random.Generator, got int"),
        ({"rng": np.random.RandomState(0)}, "got RandomState"),
        ({"resamples": 0}, "`resamples` must be in"),
        ({"resamples": 1.5}, "`resamples` must be a whole number, got 1.5"),
        ({"confidence": 95}, r"`confidence` must be in \(0, 1\), got 95"),
        ({"statistics": ["iqr"]}, "did you mean 'iqm'"),
    ],
)
def test_bad_bootstrap_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        stats.aggregate(np.zeros((2, 2)), **{"rng": rng(), **arguments})


def test_bad_companions_are_named():
    with pytest.raises(ValueError, match="equal numbers of tasks, got 1 and 2"):
        stats.probability_of_improvement([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="`thresholds` must be a finite"):
        stats.performance_profile([[1.0]], [np.nan], rng=rng())
    with pytest.raises(ValueError, match="`curves` has 3 checkpoints, but `timesteps` has 2"):
        stats.sample_efficiency(np.zeros((2, 1, 3)), [0, 1], rng=rng())
    with pytest.raises(ValueError, match=r"`curves` must be an array \[runs, tasks, checkpoints\]"):
        stats.sample_efficiency(np.zeros((2, 3)), [0, 1, 2], rng=rng())
    with pytest.raises(ValueError, match="`target`"):
        stats.optimality_gap([[1.0]], target=float("nan"))


# --- speed -----------------------------------------------------------------------------------------------------------


def test_three_algorithms_take_a_moment():
    # about 0.3 s on one core, where rliable takes half a minute; the bound leaves room for a busy machine
    scores = [rng(seed).normal(size=(10, 5)) for seed in range(3)]
    start = time.process_time()
    for each in scores:
        stats.aggregate(each, rng=rng(), resamples=50_000)
    assert time.process_time() - start < 3
