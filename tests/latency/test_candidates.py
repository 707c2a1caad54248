"""Latency tables: which candidates there are, and what counts as faster."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from example_sites import context, site

from onnxcp.chain import Geometry, cost
from onnxcp.errors import UsageError
from onnxcp.forms import FORMS
from onnxcp.graph.layers import Layer
from onnxcp.graph.sites import Site
from onnxcp.latency import candidates
from onnxcp.latency.candidates import (
    Latency,
    Measured,
    all_choices,
    candidate_ranks,
    chain_of,
    measure,
    steps,
)
from onnxcp.measure.stopwatch import Stopwatch
from onnxcp.measure.timing import Speedup
from onnxcp.plan import Choice
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

CPU = Target.named("cpu", threads=1)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("block", [8, 16])
def test_ranks_are_whole_blocks_that_save_multiply_adds(form, block):
    ranks = candidate_ranks(form, site(shape=(64, 64, 3, 3)), block)
    assert ranks[0] == block
    assert all(rank % block == 0 for rank in ranks)
    assert ranks == sorted(set(ranks))
    chain = form.stages(
        form.draw((64, 64, 3, 3), ranks[-1], np.random.default_rng(0)),
        (64, 64, 3, 3),
        Geometry(pads=(1, 1, 1, 1)),
    )
    assert cost(chain, (8, 8)).macs < 64 * 64 * 9 * 64


def test_a_refused_kernel_has_no_candidates():
    assert candidate_ranks(FORMS["cp4"], site(shape=(32, 32, 3, 1)), 16) == []


def test_an_unknown_image_size_says_what_to_pass():
    with pytest.raises(UsageError, match="input_shape"):
        candidate_ranks(FORMS["cp3"], site(image=None), 16)


def timed(choices, sites):
    return measure(choices, [context(site) for site in sites], CPU, Stopwatch(Ticks()))


def test_every_choice_is_timed_against_the_conv():
    sites = [site()]
    table = timed({"a": all_choices(sites[0], ["cp3"], 16)}, sites)
    assert [m.choice.rank for m in table["a"].tried] == [16, 32, 48, 64, 80, 96, 112]
    assert table["a"].dense > 0


def test_equal_sites_are_measured_once(monkeypatch):
    opened = []
    real = candidates.open_runner
    monkeypatch.setattr(candidates, "open_runner", lambda *a: opened.append(a) or real(*a))
    sites = [site("a"), site("b"), site("c", image=(9, 9))]
    timed({s.name: [Choice("cp3", 16)] for s in sites}, sites)
    assert len(opened) == 4  # a Conv and a chain, for two distinct shapes


def test_equal_sites_with_other_choices_are_measured_apart():
    table = timed({"a": [Choice("cp3", 16)], "b": [Choice("cp3", 32)]}, [site("a"), site("b")])
    assert [m.choice.rank for row in table.values() for m in row.tried] == [16, 32]


def kind_of_site(op, shape, image, group=1, batch=1, name="a"):
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    layer = Layer(name, op, shape, group=group)
    geometry = Geometry(dimensions=len(shape) - 2)
    return Site(layer, 0, kernel, None, geometry, image, batch, name)


KINDS = {
    "1-D": kind_of_site("Conv", (32, 16, 3), (20,)),
    "3-D": kind_of_site("Conv", (32, 16, 3, 3, 3), (5, 6, 7)),
    "groups": kind_of_site("Conv", (32, 8, 3, 3), (9, 9), group=4),
    "pointwise": kind_of_site("Conv", (32, 16, 1, 1), (9, 9), batch=2),
    "rows": kind_of_site("MatMul", (32, 16), (), batch=5),
    "sequences": kind_of_site("MatMul", (32, 16), (3, 7), batch=2),
    "Gemm": kind_of_site("Gemm", (32, 16), (), batch=5),
}
SEEN = {
    "1-D": (1, 16, 20),
    "3-D": (1, 16, 5, 6, 7),
    "groups": (1, 32, 9, 9),
    "pointwise": (2, 16, 9, 9),
    "rows": (5, 16),
    "sequences": (2, 3, 7, 16),
    "Gemm": (5, 16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_site_is_timed_as_its_model_runs_it(kind, monkeypatch):
    fed = []
    real = candidates.open_runner

    def spy(*given):
        runner = real(*given)
        bind = runner.bound
        runner.bound = lambda feeds: fed.append(feeds["x"].shape) or bind(feeds)
        return runner

    monkeypatch.setattr(candidates, "open_runner", spy)
    table = timed({"a": all_choices(KINDS[kind], ["cp3"], 16)}, [KINDS[kind]])
    assert table["a"].dense > 0
    assert set(fed) == {SEEN[kind]}
    assert bool(table["a"].tried) is (kind in ("1-D", "3-D", "groups"))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_ranks_on_groups_are_whole_groups(form):
    ranks = candidate_ranks(form, kind_of_site("Conv", (96, 48, 3, 3), (9, 9), group=3), 16)
    assert ranks
    assert all(rank % 48 == 0 for rank in ranks)


def test_sites_that_differ_in_operator_or_groups_are_measured_apart():
    products = [KINDS["rows"], KINDS["Gemm"]]
    whole = kind_of_site("Conv", (32, 8, 3, 3), (9, 9))
    assert len({context(s).key for s in (*products, KINDS["groups"], whole)}) == 4


class Ticks:
    """A clock that advances a second a look: no test here waits for a second to pass."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def measured(rank, seconds, low=2.0):
    return Measured(Choice("cp3", rank), seconds, Speedup(1 / seconds, low, 99.0))


def test_a_chain_that_may_be_slower_is_no_candidate():
    table = Latency(1.0, (measured(16, 0.5, 1.9), measured(32, 0.95, 0.99), measured(48, 1.2, 0.8)))
    (only,) = steps(table)
    assert (only.choice.rank, only.seconds) == (16, 0.5)


def test_of_a_flat_step_the_largest_rank_is_kept():
    table = Latency(1.0, (measured(16, 0.2), measured(32, 0.4), measured(48, 0.402)))
    assert [(m.choice.rank, m.seconds) for m in steps(table)] == [
        (16, 0.2),
        (48, pytest.approx(0.401)),
    ]


def test_times_that_fall_with_rank_are_pooled():
    times = (measured(16, 0.3), measured(32, 0.1), measured(48, 0.2), measured(64, 0.6))
    assert [(m.choice.rank, m.seconds) for m in steps(Latency(1.0, times))] == [
        (48, pytest.approx(0.2)),
        (64, 0.6),
    ]


def test_a_random_chain_gives_about_as_much_as_its_site():
    one = site(shape=(64, 64, 3, 3), image=(16, 16))
    feeds = context(one).feeds(np.random.default_rng(0))
    for form in ("cp3", "cp4", "svd", "tucker2"):
        chain = chain_of(one, Choice(form, 48), np.random.default_rng(1))
        sizes = [
            np.linalg.norm(open_runner(context(one).model(made), CPU)(feeds)[0])
            for made in (None, chain)
        ]
        assert 0.5 < sizes[1] / sizes[0] < 2, form


class Machine:
    """A machine whose clock is told how long everything takes, by what of it is in float."""

    def __init__(self, **seconds):
        self.seconds, self.now, self.timed = seconds, 0.0, []

    def __call__(self):
        return self.now

    def for_time(self, model, precision, feeds, where, floats=(), *, is_part=False):
        assert (precision, is_part) == ("int8", True)
        names = [n.name for n in onnx.load_from_string(model).graph.node]
        nodes = [n for n in names if "/cp/" in n and not n.endswith("/cp/dense")]
        kind = "windows" if floats else "int8"
        kind = "chain" if any(glob.endswith("*") for glob in floats) else kind
        return (kind, nodes[0].partition("/cp/")[0]) if nodes else ("dense", "")

    def open_runner(self, made, target):
        self.timed.append(made[0])
        self.kind = made[0]
        return self

    def bound(self, feeds):
        seconds = self.seconds[self.kind]

        def run():
            self.now += seconds

        return run


def mixed(monkeypatch, choices, is_mixed=True, **seconds):
    """What is measured on such a machine, and what was run on it."""
    machine = Machine(dense=1.0, int8=0.5, **seconds)
    monkeypatch.setattr(candidates, "for_time", machine.for_time)
    monkeypatch.setattr(candidates, "open_runner", machine.open_runner)
    table = measure(
        {"a": choices},
        [context(site())],
        CPU,
        Stopwatch(machine),
        precision="int8",
        is_mixed=is_mixed,
    )
    return table["a"], machine.timed


CP3 = [Choice("cp3", rank) for rank in (16, 32, 48)]
MIXED = {  # seconds of windows and of all in float, and what is worth timing at all ranks
    "neither": (0.6, 0.7, []),
    "as fast": (0.5, 0.5, []),
    "hardly faster": (0.495, 0.7, []),
    "windows": (0.4, 0.7, ["windows"]),
    "chain": (0.6, 0.3, ["chain"]),
    "both": (0.4, 0.3, ["windows", "chain"]),
}


@pytest.mark.parametrize("row", MIXED.values(), ids=MIXED)
def test_what_stays_in_float_is_timed_at_all_ranks_only_where_a_probe_is_faster(row, monkeypatch):
    windows, chain, worth = row
    found, timed = mixed(monkeypatch, CP3, windows=windows, chain=chain)
    more = [replace(choice, floats=kind) for kind in worth for choice in CP3]
    assert [m.choice for m in found.tried] == CP3 + more
    seconds = {"": 0.5, "windows": windows, "chain": chain}
    assert [m.seconds for m in found.tried] == pytest.approx(
        [seconds[m.choice.floats] for m in found.tried]
    )
    probes = ["int8", "windows", "chain"]
    again = ["dense", *(choice.floats for choice in more)] if more else []
    assert timed == ["dense", "int8", "int8", "int8", *probes, *again]


def test_a_chain_without_windows_is_probed_as_a_whole(monkeypatch):
    _, timed = mixed(monkeypatch, [Choice("svd", 16)], windows=0.1, chain=0.7)
    assert timed == ["dense", "int8", "int8", "chain"]


def test_choices_that_are_given_are_timed_as_they_are(monkeypatch):
    given = [Choice("cp3", 32, "windows")]
    found, timed = mixed(monkeypatch, given, is_mixed=False, windows=0.9, chain=0.1)
    assert ([m.choice for m in found.tried], timed) == (given, ["dense", "windows"])


def kinds(**rows):
    """A table of chains at ranks, by what of them is in float."""
    faster = Speedup(2.0, 1.9, 2.1)
    return Latency(
        1.0,
        tuple(
            Measured(Choice("cp3", rank, kind.removeprefix("int8")), seconds, faster)
            for kind, times in rows.items()
            for rank, seconds in times.items()
        ),
    )


def test_of_equal_form_and_rank_only_the_faster_is_chosen_from():
    table = kinds(int8={16: 0.2, 32: 0.4, 48: 0.6}, windows={16: 0.3, 32: 0.35, 48: 0.7})
    assert [(m.choice.rank, m.choice.floats) for m in steps(table)] == [
        (16, ""),
        (32, "windows"),
        (48, ""),
    ]


def test_a_larger_rank_that_is_faster_in_float_leaves_smaller_ones_no_use():
    table = kinds(int8={16: 0.2, 32: 0.4, 48: 0.6}, chain={16: 0.298, 32: 0.299, 48: 0.3})
    assert [(m.choice.rank, m.choice.floats) for m in steps(table)] == [(16, ""), (48, "chain")]
