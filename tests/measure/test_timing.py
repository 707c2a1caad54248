"""Timing: turns are fair, and noise is not called a difference. No test here sleeps."""

import numpy as np
import pytest

from onnxcp.measure import timing as benchmark
from onnxcp.measure.stopwatch import Stopwatch
from onnxcp.measure.timing import Speedup, Timing, median_interval, speedup, take_turns


class FakeClock:
    """A clock that only advances when work says so."""

    now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        def run():
            self.now += seconds

        return run


def noisy(rng, mean, turns=200):
    """Times with spikes and slow drift, as a shared machine gives."""
    drift = 1 + 0.1 * np.sin(np.linspace(0, 6, turns))
    return mean * drift * np.exp(0.05 * rng.standard_normal(turns)) + (rng.random(turns) < 0.05)


def test_turns_are_timed_separately_and_warmup_is_dropped():
    clock = FakeClock()
    old, new = take_turns([clock.work(2.0), clock.work(0.5)], Stopwatch(clock), turns=5)
    assert old.seconds == pytest.approx([2.0] * 5)
    assert speedup(old, new) == Speedup(4.0, 4.0, 4.0)
    assert speedup(old, new).is_clear


def test_the_order_is_reversed_every_other_turn():
    order = []
    take_turns(
        [lambda: order.append("a"), lambda: order.append("b")],
        Stopwatch(FakeClock()),
        turns=2,
        warmup=0,
    )
    assert "".join(order) in ("abba", "baab")


def test_a_time_limit_ends_after_eight_turns_at_least():
    clock = FakeClock()
    (only,) = take_turns([clock.work(1.0)], Stopwatch(clock), turns=100, warmup=0, seconds=10.0)
    assert 8 <= len(only.seconds) <= 11


def test_noise_is_not_a_speedup():
    calls = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        old, new = (Timing(tuple(noisy(rng, 1.0))) for _ in range(2))
        calls.append(speedup(old, new).is_clear)
    assert sum(calls) <= 4  # 5 % of 40 are expected


def test_ten_percent_is_seen_through_noise():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = speedup(Timing(tuple(noisy(rng, 1.1))), Timing(tuple(noisy(rng, 1.0))))
        assert found.low > 1


def test_copies_that_differ_by_half_a_percent_are_not_told_apart():
    times = [1.0 + 0.0001 * (i % 7) for i in range(200)]
    found = speedup(Timing(tuple(1.005 * t for t in times)), Timing(tuple(times)))
    assert found.low > 1
    assert not found.is_clear


def test_intervals_do_not_depend_on_how_much_is_resampled_at_once(monkeypatch):
    old, new = (Timing(tuple(noisy(np.random.default_rng(s), 1.0))) for s in (1, 2))
    whole = speedup(old, new)
    monkeypatch.setattr(benchmark, "AT_ONCE", 1000)
    assert speedup(old, new) == whole


def test_the_interval_of_a_median_holds_it():
    timing = Timing(tuple(noisy(np.random.default_rng(0), 1.0)))
    low, high = median_interval(timing)
    assert low < timing.median < high < 1.2 * low


def test_uneven_timings_are_refused():
    with pytest.raises(ValueError, match="got 4 and 3"):
        speedup(Timing((1.0,) * 4), Timing((1.0,) * 3))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (Speedup(2.0, 1.9, 2.1), "2.00× faster"),
        (Speedup(0.5, 0.4, 0.6), "2.00× slower"),
        (Speedup(1.02, 0.99, 1.05), "no significant difference"),
    ],
)
def test_a_ratio_is_put_into_words(ratio, words):
    assert ratio.verdict() == words


def test_a_wide_spread_is_noisy():
    assert Timing((1.0, 1.0, 2.0, 2.0)).is_noisy
    assert not Timing((1.0, 1.01, 1.0, 1.02)).is_noisy
