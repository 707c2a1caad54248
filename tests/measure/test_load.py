"""Timing while other work runs: what is told is right, or nothing is told.

A made-up scheduler gives the process a slice of time, then every other program that is busy one.
No test here sleeps or depends on how busy this machine is, but for one that makes it busy.
"""

import multiprocessing
import statistics
import time
from dataclasses import dataclass

import numpy as np
import pytest
from tiny import chain_model

from onnxcp.chain import Geometry, Stage
from onnxcp.errors import TooBusy
from onnxcp.measure.stopwatch import (
    Interruptions,
    ManyThreads,
    OneThread,
    Run,
    Stopwatch,
    stopwatch,
)
from onnxcp.measure.timing import PATIENCE, Timing, disturbance, speedup, take_turns
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

SLICE = 3e-3
SHORT, LONG = 0.93e-3, 8e-3  # one fits within a slice, the other never does


class Shared(Stopwatch):
    """A core shared with `load(now)` other programs. `has_processor` is what one thread tells."""

    def __init__(self, load, has_processor=True):
        super().__init__()
        self.load, self.has_processor = load, has_processor
        self.now, self.used, self.left = 0.0, 0.0, SLICE

    def __call__(self):
        return self.now

    def start(self):
        self.begun = (self.now, self.used)

    def stop(self):
        wall, used = self.now - self.begun[0], self.used - self.begun[1]
        return Run(wall, used if self.has_processor else None, wall - used)

    def work(self, seconds):
        def run():
            todo = seconds
            while todo > 1e-12:
                step = min(todo, self.left)
                self.now, self.used = self.now + step, self.used + step
                todo, self.left = todo - step, self.left - step
                if self.left <= 1e-12:
                    self.now, self.left = self.now + self.load(self.now) * SLICE, SLICE

        return run

    def turns(self, *seconds, turns=200, **more):
        return take_turns([self.work(s) for s in seconds], self, turns=turns, **more)


def steady(programs):
    return lambda now: programs


def on_and_off(programs, period=0.5):
    return lambda now: programs * int(now / period % 2)


def changing(seed, most=6, period=0.5):
    return lambda now: int(np.random.default_rng([seed, int(now / period)]).integers(0, most + 1))


def test_medians_alone_would_be_wrong_by_far():
    old, new = Shared(steady(3)).turns(LONG, SHORT)
    assert statistics.median(old.seconds) / statistics.median(new.seconds) > 3 * LONG / SHORT


@pytest.mark.parametrize("load", [steady(0), steady(1), steady(7), on_and_off(3)])
def test_the_ratio_of_a_short_and_a_long_model_is_the_quiet_one(load):
    found = speedup(*Shared(load).turns(LONG, SHORT))
    assert found.ratio == pytest.approx(LONG / SHORT, rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_under_changing_load_a_ratio_is_the_quiet_one_or_refused(seed):
    for has_processor in (True, False):
        watch = Shared(changing(seed), has_processor)
        try:
            found = speedup(*watch.turns(LONG, SHORT, turns=100))
        except TooBusy:
            continue
        assert found.ratio == pytest.approx(LONG / SHORT, rel=0.05)


@pytest.mark.parametrize("seed", range(10))
def test_a_model_is_never_told_from_itself(seed):
    for seconds in (SHORT, LONG):
        watch = Shared(changing(seed))
        assert not speedup(*watch.turns(seconds, seconds, turns=100)).is_clear


def test_several_threads_that_always_wait_are_refused():
    with pytest.raises(TooBusy, match=r"other work ran in 100% of \d+ turns.*threads=1"):
        Shared(steady(1), has_processor=False).turns(LONG, SHORT)


def test_a_refusal_is_a_clear_no():
    assert TooBusy.exit_code == 1


def test_several_threads_are_compared_by_the_turns_that_nothing_disturbed():
    old, new = Shared(on_and_off(3), has_processor=False).turns(LONG, SHORT)
    assert speedup(old, new).ratio == pytest.approx(LONG / SHORT)
    told = disturbance(old, new)
    assert 0 < told.disturbed < told.turns
    words = f"{told.disturbed} of {told.turns} turns dropped because other work ran"
    assert told.words() == words


def test_both_runs_of_a_disturbed_turn_are_dropped():
    """Else the slow half, in which the long model is always disturbed, would remain of one."""
    fast, slow = (8.0, 1.0), (16.0, 2.0)  # another clock rate: twice as long, both of them
    turns = [fast] * 20 + [slow] * 60
    disturbed = (False,) * 40 + (True,) * 40
    old = Timing(tuple(t[0] for t in turns), (), disturbed)
    new = Timing(tuple(t[1] for t in turns), (), (False,) * 80)
    assert old.median / new.median != pytest.approx(8.0)
    assert speedup(old, new).ratio == pytest.approx(8.0)


def test_a_clock_rate_that_changes_leaves_the_ratio():
    rates = np.where(np.arange(201) % 67 < 33, 1.0, 1.7)
    old, new = Timing(tuple(3.0 * rates)), Timing(tuple(1.0 * rates))
    assert speedup(old, new).ratio == pytest.approx(3.0)


def test_running_faster_after_itself_favors_no_model():
    """In every other turn a model follows itself: it is faster there."""
    old, new = [], []
    for turn in range(100):
        old.append(0.9 if turn % 2 else 1.0)
        new.append(1.0 if turn % 2 else 0.9)
    found = speedup(Timing(tuple(old)), Timing(tuple(new)))
    assert found.ratio == pytest.approx(1.0)
    assert not found.is_clear


def test_a_time_of_one_model_is_of_undisturbed_runs_or_refused():
    (told,) = Shared(on_and_off(3)).turns(LONG)
    assert told.median == pytest.approx(LONG)
    with pytest.raises(TooBusy, match="too busy to measure"):
        Shared(steady(1)).turns(LONG)


def test_waiting_for_a_quiet_machine_ends():
    watch = Shared(steady(1), has_processor=False)
    with pytest.raises(TooBusy):
        watch.turns(LONG, SHORT, turns=10**6, seconds=5.0)
    assert watch.now < 1.1 * PATIENCE * 5.0


def test_a_busy_spell_is_waited_out():
    watch = Shared(lambda now: int(now < 4.0), has_processor=False)
    old, new = watch.turns(LONG, SHORT, turns=10**6, seconds=3.0)
    assert watch.now > 4.0
    assert speedup(old, new).ratio == pytest.approx(LONG / SHORT)


@dataclass
class Rough(Shared):
    """Processor times that differ from run to run as caches are filled again."""

    def __init__(self, spread):
        super().__init__(steady(1))
        self.spread, self.rng = spread, np.random.default_rng(0)

    def stop(self):
        run = super().stop()
        cold = np.exp(self.spread * self.rng.standard_normal())
        return Run(run.wall, run.processor * cold, run.lost)


def test_processor_times_that_are_not_known_well_are_refused():
    with pytest.raises(TooBusy):
        Rough(0.8).turns(LONG, SHORT, turns=20)
    assert speedup(*Rough(0.05).turns(LONG, SHORT)).ratio == pytest.approx(LONG / SHORT, rel=0.05)


def test_an_interval_that_tells_nothing_is_not_called_no_difference():
    rng = np.random.default_rng(0)
    old, new = (Timing(tuple(np.exp(rng.standard_normal(12)))) for _ in range(2))
    found = speedup(old, new)
    assert not found.is_told
    assert found.verdict().startswith("too noisy to tell")


@pytest.mark.parametrize(
    ("provider", "threads", "kind"),
    [("cpu", 1, OneThread), ("cpu", 2, ManyThreads), ("cpu,xnnpack", 1, ManyThreads)],
)
def test_only_one_thread_on_the_cpu_is_told_by_its_processor_time(provider, threads, kind):
    names = [name for name in provider.split(",") if name == "cpu"]
    target = Target.recorded(",".join(names + ["other"] * ("," in provider)), threads, {})
    assert type(stopwatch(target)) in {kind, *([Interruptions] if kind is ManyThreads else [])}


def test_the_wait_for_a_core_is_read_of_every_thread_that_computes(tmp_path):
    watch = _threads(tmp_path, computed=(1, 2))
    watch.start()
    (tmp_path / "2" / "schedstat").write_text("600 2000001000 4\n")
    run = watch.stop()
    assert run.lost == pytest.approx(2.0)
    assert run.is_disturbed


def test_threads_that_compute_nothing_are_not_read(tmp_path):
    watch = _threads(tmp_path, computed=(1,))
    watch.start()
    (tmp_path / "2" / "schedstat").write_text("500 2000001000 4\n")
    assert watch.stop().lost == 0
    assert len(watch._files) == 1


def test_a_thread_is_read_from_the_first_look_after_it_computed(tmp_path):
    watch = _threads(tmp_path, computed=(1,))
    (tmp_path / "2" / "schedstat").write_text("600 1000 3\n")
    watch.prepare()
    watch.start()
    (tmp_path / "2" / "schedstat").write_text("600 2000001000 4\n")
    assert watch.stop().lost == pytest.approx(2.0)


def _threads(folder, computed):
    """Two threads, of which some compute between the first look and the second."""
    for number in (1, 2):
        (folder / str(number)).mkdir()
        (folder / str(number) / "schedstat").write_text("500 1000 3\n")
    watch = ManyThreads(folder)
    for number in computed:
        (folder / str(number) / "schedstat").write_text("600 1000 3\n")
    watch.prepare()
    return watch


def test_what_the_first_run_takes_is_not_counted_in_the_seconds():
    """A device chooses its algorithms then."""
    watch, first = Shared(lambda now: 0), [True]

    def run():
        watch.work(100.0 if first.pop(0) else 0.01)()
        first.append(False)

    (timing,) = take_turns([run], watch, turns=1000, warmup=1, seconds=1.0)
    assert len(timing.seconds) == pytest.approx(100, abs=2)


def test_a_sleep_is_no_wait_for_a_core():
    """A device is waited for so. Only that the sleep itself is not counted can be said on a
    machine that may be busy."""
    watch = ManyThreads()
    watch.prepare()
    losses = []
    for _ in range(5):
        watch.start()
        time.sleep(0.05)
        losses.append(watch.stop().lost)
    assert min(losses) < 0.045


def _spin(ended):
    while not ended.is_set():
        sum(range(10_000))


def test_on_a_busy_machine_real_sessions_are_told_right_or_not_at_all():
    kernels = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    model = chain_model(
        (Stage("dense", kernels, Geometry(pads=(1, 1, 1, 1)), 1, None),),
        (1, 64, 28, 28),
        np.dtype("float32"),
        "Conv",
    )
    target = Target.named("cpu", 1)
    once = open_runner(model, target).bound({"x": np.ones((1, 64, 28, 28), np.float32)})

    def often():
        for _ in range(10):
            once()

    ended = multiprocessing.Event()
    others = [multiprocessing.Process(target=_spin, args=(ended,), daemon=True) for _ in range(5)]
    for other in others:
        other.start()
    try:
        for true, subjects in ((10.0, [often, once]), (1.0, [once, once])):
            try:
                timings = take_turns(subjects, stopwatch(target), turns=10**6, seconds=1.0)
            except TooBusy:
                continue
            assert speedup(*timings).ratio == pytest.approx(true, rel=0.1)
    finally:
        ended.set()
        for other in others:
            other.join()


def test_an_interval_allows_for_what_other_work_does_to_a_session():
    """Caches that others fill slow one of two sessions of a model for as long as it lasts."""
    walls, cores = np.full(200, 5e-3), np.full(200, 1e-3)
    disturbed = (True,) * 180 + (False,) * 20
    slow = Timing(tuple(1.04 * walls), tuple(1.04 * cores), disturbed)
    fast = Timing(tuple(walls), tuple(cores), disturbed)
    assert not speedup(slow, fast).is_clear
    quiet = [Timing(tuple(rate * cores), tuple(rate * cores)) for rate in (1.04, 1.0)]
    assert speedup(*quiet).is_clear
