"""The measured time of every candidate in place of its node, on the target.

The node, mostly a Conv, and each candidate chain run in turns on the provider, together with the
nodes after them that can be fused (`context`). The time of a chain does not depend on its weights,
so no fit is needed. Layout conversions at the start and end of the small model cost the same on
both sides: a candidate saves the difference of the two times.

In int8 a chain may keep its windows, or all its nodes, in float. That is rarely faster, so it is
tested at one rank of a form, and timed at all ranks only if it is faster there.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.chain import Chain, Sizes, Stage, cost
from onnxcp.errors import TooBusy, UsageError
from onnxcp.forms import FORMS, Form
from onnxcp.forms.grouped import drawn, largest_rank
from onnxcp.graph.float_parts import globs, possible
from onnxcp.graph.sites import Site
from onnxcp.latency.context import Context
from onnxcp.measure.adaptive_turns import CLEARLY, SECONDS, are_tight, are_told, until
from onnxcp.measure.stopwatch import Stopwatch
from onnxcp.measure.time_budget import now
from onnxcp.measure.timing import Speedup, refuse_busy, speedup
from onnxcp.plan import Choice
from onnxcp.progress import Progress, silent
from onnxcp.quantization.convert import for_time
from onnxcp.quantization.precision import FLOAT32
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

AN_OCTAVE = 4  # candidate ranks from one to its double: about 10 % of a chain's error apart
FLAT = 0.01  # times that differ by less are one step
PROBE, PROBE_LEAST = 0.5, 0.1  # seconds for what stays in float, in one form and context
TRIES = 2  # at what the machine was too busy for


@dataclass(frozen=True, slots=True)
class Measured:
    """The time of one chain in place of a Conv."""

    choice: Choice
    seconds: float
    against: Speedup  # Conv over chain

    @property
    def is_faster(self) -> bool:
        """Whether the chain is clearly faster, by the interval of the ratio."""
        return self.against.is_faster


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one site: its Conv, and every candidate tried.

    `busy` says why there are none if other work on the machine made timing impossible; `dense` is
    then the shortest time measured.
    """

    dense: float  # seconds
    tried: tuple[Measured, ...]
    busy: str | None = None

    def measured(self, choice: Choice) -> Measured | None:
        """The measurement of a candidate; None if there is none."""
        return next((m for m in self.tried if m.choice == choice), None)


@dataclass(frozen=True, slots=True)
class Pace:
    """How thoroughly candidates are timed.

    The number of ranks from one to its double, the time limit of one context in seconds, and the
    time to end, on the clock of `time_budget`. `last` is the time to end if no chain is faster by
    then, if that is later.
    """

    octave: int = AN_OCTAVE
    seconds: float = SECONDS
    end: Callable[[], float] = lambda: math.inf
    last: float = -math.inf

    @property
    def is_hurried(self) -> bool:
        return self.octave < AN_OCTAVE


THOROUGH = Pace()


def candidate_ranks(form: Form, site: Site, block: int, octave: int = AN_OCTAVE) -> list[int]:
    """Candidate ranks: multiples of `block` and of the groups, `octave` per doubling.

    Only ranks at which the chain has fewer multiply-adds than the site.
    """
    if form.refuses(site.part) is not None:
        return []
    image, step = _image(site), math.lcm(block, site.group)
    dense, ranks, rank = cost([dense_stage(site)], image).macs, list[int](), step
    while rank <= largest_rank(form, site.shape, site.group) and _macs(form, site, rank) < dense:
        ranks.append(rank)
        power = 2 ** ((rank // step).bit_length() - 1)
        rank += step * max(1, power // octave)
    return ranks


def _macs(form: Form, site: Site, rank: int) -> int:
    rng = np.random.default_rng(0)
    chain = drawn(form, site.shape, site.group, rank, site.geometry, rng)
    return cost(chain, _image(site)).macs


def dense_stage(site: Site) -> Stage:
    """The site's own convolution."""
    return Stage("dense", site.kernel, site.geometry, site.group, site.bias)


def _image(site: Site) -> Sizes:
    if site.image is None:
        raise UsageError(
            f"{site.name}: its input size is not fixed by the model; pass <<input_shape>>"
        )
    return site.image


def all_choices(
    site: Site, forms: Sequence[str], block: int, octave: int = AN_OCTAVE
) -> list[Choice]:
    """Every form at every candidate rank."""
    return [
        Choice(name, rank)
        for name in forms
        for rank in candidate_ranks(FORMS[name], site, block, octave)
    ]


def measure(
    choices: Mapping[str, Sequence[Choice]],
    contexts: Iterable[Context],
    target: Target,
    watch: Stopwatch,
    *,
    precision: str = FLOAT32,
    seed: int = 0,
    is_mixed: bool = False,
    pace: Pace = THOROUGH,
    progress: Progress = silent,
) -> dict[str, Latency]:
    """Times of each site's `choices`, by site name.

    Equal measurements are taken once, and repeated at the end if the machine was too busy. In
    int8 the node itself is measured in int8, too; `is_mixed` adds the same choices with windows or
    all nodes in float if that is clearly faster. A pace with an end measures the largest layers
    first, at least one, and leaves out those that would end too late; the limit depends on whether
    a chain is faster so far.
    """
    named = {context.site.name: context for context in contexts}
    asked = {n: (context, tuple(choices[n])) for n, context in named.items() if n in choices}
    keys = {name: (context.key, wanted) for name, (context, wanted) in asked.items()}
    distinct = {keys[name]: row for name, row in asked.items()}
    known: dict[object, Latency] = {}
    end, took, is_any_faster = pace.end(), 0.0, False
    for _ in range(TRIES):
        again = [key for key in distinct if key not in known or known[key].busy is not None]
        if math.isfinite(end):
            again.sort(key=lambda key: -(distinct[key][0].site.layer.macs or 0))
        for done, key in enumerate(again):
            progress("time candidates", done, len(again))
            if known and now() + took > (end if is_any_faster else max(end, pace.last)):
                break
            begun, (context, wanted) = now(), distinct[key]
            bench = _Bench(context, target, watch, precision, seed, pace.seconds)
            known[key] = _mixed(bench, wanted) if is_mixed else _plain(bench, wanted)
            took, is_any_faster = now() - begun, is_any_faster or bool(steps(known[key]))
    return {name: known[key] for name, key in keys.items() if key in known}


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """The timing of chains in one context."""

    context: Context
    target: Target
    watch: Stopwatch
    precision: str
    seed: int
    seconds: float = SECONDS

    def ready(self, choices: Sequence[Choice | None]) -> list[Callable[[], object]]:
        """Runners of the node (None) and of chains (choices)."""
        rng, site = np.random.default_rng(self.seed), self.context.site
        chains = [None if c is None else chain_of(site, c, rng) for c in choices]
        feeds, runs = self.context.feeds(rng), list[Callable[[], object]]()
        for choice, chain in zip(choices, chains, strict=True):
            floats = [] if choice is None else globs(site.name, choice.floats, _roles(chain))
            model = self.context.model(chain)
            made = for_time(model, self.precision, feeds, site.name, floats, is_part=True)
            runs.append(open_runner(made, self.target).bound(feeds))
        return runs


def _roles(chain: Chain | None) -> list[str]:
    return [stage.role for stage in chain or ()]


def _plain(bench: _Bench, choices: Sequence[Choice]) -> Latency:
    """Times of the choices without float parts."""
    runs = bench.ready([None, *choices])
    dense, *timings = until(are_tight, runs, bench.watch, most=bench.seconds)
    try:
        if not dense.processor:
            refuse_busy((dense,))
        ratios = [speedup(dense, timing) for timing in timings]
    except TooBusy as error:
        return Latency(min(dense.seconds), (), error.text)
    pairs = zip(choices, ratios, strict=True)
    return Latency(dense.median, tuple(Measured(c, dense.median / r.ratio, r) for c, r in pairs))


def _mixed(bench: _Bench, choices: Sequence[Choice]) -> Latency:
    """Times of the choices, and of those with float parts where a test at one rank is faster."""
    found, more = _plain(bench, choices), list[Choice]()
    for form in dict.fromkeys(choice.form for choice in choices):
        mine = [choice for choice in choices if choice.form == form]
        more += [replace(c, floats=floats) for floats in _faster(bench, mine) for c in mine]
    if not more:
        return found
    floats = _plain(bench, more)
    if floats.busy is not None:
        return floats
    others = [  # on the scale of the first: the machine may have slowed down since
        replace(m, seconds=found.dense / m.against.ratio) for m in floats.tried
    ]
    return Latency(found.dense, (*found.tried, *others))


def _faster(bench: _Bench, choices: Sequence[Choice]) -> list[str]:
    """Float parts that are clearly faster, at the rank of a form nearest the site's channels."""
    site = bench.context.site
    probed = min(choices, key=lambda c: abs(c.rank - site.shape[0]))
    kinds = possible(_roles(chain_of(site, probed, np.random.default_rng(bench.seed))))
    runs = bench.ready([probed, *(replace(probed, floats=kind) for kind in kinds)])
    int8, *timings = until(are_told, runs, bench.watch, PROBE_LEAST, PROBE)
    try:
        ratios = [speedup(int8, timing) for timing in timings]
    except TooBusy:
        return []
    return [k for k, r in zip(kinds, ratios, strict=True) if r.low > 1 and r.ratio > CLEARLY]


def chain_of(site: Site, choice: Choice, rng: np.random.Generator) -> Chain:
    """A chain of the choice's form and rank with random weights, whose output is about as
    large as the site's own.

    Without a bias, so that the node's own stays where it is.
    """
    form = FORMS[choice.form]
    made = drawn(form, site.shape, site.group, choice.rank, site.geometry, rng)
    *others, last = made
    gain = math.prod(math.prod(stage.weight.shape[1:]) for stage in made)  # of the variance
    size = float(np.square(site.kernel, dtype=np.float64).sum()) / len(site.kernel)
    scaled = last.weight * math.sqrt(size / gain) / _spread(made)
    return (*others, Stage(last.role, scaled, last.geometry, last.group))


def _spread(chain: Chain) -> float:
    """Product of the standard deviations of the stages' weights."""
    return math.prod(float(stage.weight.std()) or 1.0 for stage in chain)


def steps(latency: Latency) -> list[Measured]:
    """The useful candidates: faster than the Conv, and with times that do not fall with rank.

    Of ranks that take equally long, only the largest. Float parts have their own steps; within a
    form, a candidate must be faster than all others of at least its rank.
    """
    kept: list[Measured] = []
    for form in dict.fromkeys(m.choice.form for m in latency.tried):
        mine = sorted((m for m in latency.tried if m.choice.form == form), key=_rank)
        kinds = dict.fromkeys(m.choice.floats for m in mine)
        faster = [m for k in kinds for m in _steps([m for m in mine if m.choice.floats == k])]
        kept += _undominated([m for m in faster if m.is_faster])
    return kept


def _undominated(found: Sequence[Measured]) -> list[Measured]:
    """Candidates, by rising rank, for which none of at least their rank is as fast."""
    kept: list[Measured] = []
    for measured in sorted(found, key=lambda m: (-m.choice.rank, m.seconds)):
        if not kept or measured.seconds < kept[-1].seconds:
            kept.append(measured)
    return kept[::-1]


def _rank(measured: Measured) -> int:
    return measured.choice.rank


def _steps(ranked: Sequence[Measured]) -> list[Measured]:
    """Times made to rise with rank, by pooling neighbors that do not (isotonic regression).

    Of each pool the largest rank, which is the most accurate, at the pool's mean time.
    """
    pools: list[list[Measured]] = []
    for measured in ranked:
        pool = [measured]
        while pools and _mean(pool) <= (1 + FLAT) * _mean(pools[-1]):
            pool = pools.pop() + pool
        pools.append(pool)
    return [Measured(p[-1].choice, _mean(p), p[-1].against) for p in pools]


def _mean(pool: Sequence[Measured]) -> float:
    return sum(m.seconds for m in pool) / len(pool)
