"""Paired statistics against closed forms, exact tests by another hand, and coverage of planted effects."""

import numpy as np
import pytest
from scipy import stats

from playpen.paired import holm, interval, paired_effect, sign_flip_p, standard_error


def test_with_one_seed_the_interval_is_the_t_interval_over_items() -> None:
    values = np.random.default_rng(0).normal(1, 2, (1, 30))
    assert interval(values) == pytest.approx(stats.t.interval(0.95, 29, values.mean(), stats.sem(values[0])))


def test_with_one_item_the_error_is_that_of_the_mean_over_seeds() -> None:
    values = np.array([[1.0], [2.0], [4.0]])
    assert standard_error(values) == pytest.approx(stats.sem(values[:, 0]))
    assert standard_error(np.array([[3.0]])) == 0


def test_crossed_seeds_and_items_add_their_variances() -> None:
    seeds, items = np.array([[-0.2], [0.1], [0.4]]), np.linspace(-1, 1, 50)[None]
    assert standard_error(seeds + items) == pytest.approx(np.hypot(stats.sem(seeds[:, 0]), stats.sem(items[0])))


def pigeonhole(values: np.ndarray, draws: int) -> float:
    """Return the deviation of the mean over draws of seeds and of items, weights spread so that variances divide by n - 1."""
    rng, weights = np.random.default_rng(0), []
    for units in values.shape:
        counts = rng.multinomial(units, np.full(units, 1 / units), size=draws)
        weights.append((1 + np.sqrt(units / (units - 1)) * (counts - 1)) / units)
    return float(((weights[0] @ values) * weights[1]).sum(1).std())


@pytest.mark.parametrize("shape", [(3, 40), (2, 5), (12, 9)])
def test_the_error_is_what_a_bootstrap_of_seeds_and_items_at_once_comes_to(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    values = 0.3 * rng.normal(size=(shape[0], 1)) + 0.5 * rng.normal(size=(1, shape[1])) + rng.normal(size=shape)
    assert standard_error(values) == pytest.approx(pigeonhole(values, 60_000), rel=0.015)


def test_the_squared_error_is_unbiased_but_for_the_noise_of_cells_which_counts_three_times() -> None:
    rng, seeds, items, found = np.random.default_rng(0), 4, 6, []
    for _ in range(4000):
        values = 0.7 * rng.normal(size=(seeds, 1)) + 0.5 * rng.normal(size=(1, items)) + rng.normal(size=(seeds, items))
        found.append(standard_error(values) ** 2)
    expected = 0.49 / seeds + 0.25 / items + 3 / (seeds * items)
    assert np.mean(found) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("of_seeds", "of_items", "of_cells"), [(0.3, 0.05, 0.05), (0.0, 1.0, 0.5), (0.1, 1.0, 0.5)])
def test_the_interval_of_three_seeds_covers_a_planted_effect(of_seeds: float, of_items: float, of_cells: float) -> None:
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        gap = rng.normal(0, of_seeds, (3, 1)) + rng.normal(0, of_items, (1, 40)) + rng.normal(0, of_cells, (3, 40))
        hard = rng.normal(5, 3, (1, 40))
        found = paired_effect(hard + gap - 0.25, np.repeat(hard, 3, axis=0), seed=trial)
        hits += found.low <= -0.25 <= found.high
    assert 0.89 <= hits / 200 <= 1.0


def test_what_two_arms_share_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    hard, noise = rng.normal(0, 100, (1, 60)), rng.normal(0, 0.1, (3, 60))
    found = paired_effect(hard + noise - 1, np.repeat(hard, 3, axis=0))
    assert found.low < -1 < found.high
    assert found.high - found.low < 0.3


def test_swapping_the_arms_turns_the_sign_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(0, 1, (3, 20)), rng.normal(0.3, 1, (3, 20))
    there, back = paired_effect(left, right), paired_effect(right, left)
    assert (there.effect, there.low, there.high) == pytest.approx((-back.effect, -back.high, -back.low))
    assert (there.p_items, there.p_seeds, there.lower) == (back.p_items, back.p_seeds, 3 - back.lower)


@pytest.mark.parametrize(("gaps", "p"), [([1, 2, 3], 2 / 8), ([-1] * 10, 2 / 1024), ([3, 1, -1], 6 / 8), ([0, 0], 1.0)])
def test_few_gaps_get_the_exact_p(gaps: list[float], p: float) -> None:
    assert sign_flip_p(gaps) == p


def test_the_exact_p_is_that_of_scipy() -> None:
    gaps = np.random.default_rng(3).normal(0.4, 1, 9)
    theirs = stats.permutation_test((gaps,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_p(gaps) == pytest.approx(theirs)


def test_many_gaps_get_a_drawn_p_near_the_normal_one_and_never_zero() -> None:
    gaps = np.random.default_rng(4).normal(0.12, 1, 300)
    normal = 2 * stats.norm.sf(abs(gaps.sum()) / np.sqrt((gaps**2).sum()))
    assert sign_flip_p(gaps) == pytest.approx(normal, abs=0.02)
    assert sign_flip_p(np.ones(300)) == 1 / 10000


def test_arms_without_any_difference_give_zero_and_one() -> None:
    found = paired_effect(np.ones((2, 5)), np.ones((2, 5)))
    assert (found.effect, found.low, found.high, found.p_items, found.p_seeds) == (0, 0, 0, 1, 1)


def test_matrices_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paired_effect(np.ones((2, 5)), np.ones((3, 5)))
    with pytest.raises(ValueError, match="not finite"):
        paired_effect([[1.0, np.nan]], [[1.0, 1.0]])


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm({"b": 0.04, "a": 0.01, "c": 0.03}) == pytest.approx({"b": 0.06, "a": 0.03, "c": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_where_seeds_and_items_vary_alike_the_largest_p_is_small_as_seldom_as_it_says() -> None:
    rng, trials, found = np.random.default_rng(0), 300, {"flips": 0, "all": 0}
    for trial in range(trials):
        gap = rng.normal(size=(12, 1)) + rng.normal(size=(1, 14)) * (14 / 12) ** 0.5
        effect = paired_effect(gap, np.zeros_like(gap), seed=trial)
        flips = max(effect.p_seeds, effect.p_items)
        found["flips"] += flips < 0.1
        found["all"] += max(flips, effect.p_both) < 0.1
    assert found["flips"] > 0.13 * trials
    assert found["all"] < 0.13 * trials
