"""The measured time of every candidate in place of its node, on the target.

The node, mostly a Conv, and each candidate chain run in turns on the provider, each with what
follows it closely enough to fuse (`context`). The time of a chain does not depend on its
weights, so no fit is needed. A small model's first and last layout conversions fall on both
sides alike: what a candidate saves is the difference of the two times.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.benchmark import Speedup, Timing, speedup, take_turns
from onnxcp.context import Context
from onnxcp.conv import Chain, Sizes, Stage, cost
from onnxcp.errors import UsageError
from onnxcp.forms import FORMS, Form
from onnxcp.forms.grouped import drawn, largest_rank
from onnxcp.narrowing import for_time
from onnxcp.plan import Choice
from onnxcp.precision import FLOAT32
from onnxcp.progress import Progress, silent
from onnxcp.providers import Target
from onnxcp.sessions import open_runner
from onnxcp.sites import Site

AN_OCTAVE = 4  # candidate ranks from one to its double: about 10 % of a chain's error apart
SECONDS = 3.0  # spent on one distinct context at most, once FIRST turns are taken
LEAST = 0.3  # seconds at least: a burst of other work must not fall on one context alone
FIRST, MOST = 10, 5120  # turns, doubled until the intervals are tight
TIGHT = 0.02  # half of a ratio's 95 % interval, over the ratio
FLAT = 0.01  # times that differ by less are one step


@dataclass(frozen=True, slots=True)
class Measured:
    """One chain's time in place of a Conv."""

    choice: Choice
    seconds: float
    against: Speedup  # Conv over chain

    @property
    def is_faster(self) -> bool:
        """Whether the whole 95 % interval is above 1."""
        return self.against.low > 1


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one site: its Conv, and every candidate tried."""

    dense: float  # seconds
    tried: tuple[Measured, ...]


def candidate_ranks(form: Form, site: Site, block: int) -> list[int]:
    """Multiples of `block` and of the groups, `AN_OCTAVE` of them to the double of each power
    of two, while the chain has fewer multiply-adds."""
    if form.refuses(site.part) is not None:
        return []
    image, step = _image(site), math.lcm(block, site.group)
    dense, ranks, rank = cost([dense_stage(site)], image).macs, list[int](), step
    while rank <= largest_rank(form, site.shape, site.group) and _macs(form, site, rank) < dense:
        ranks.append(rank)
        octave = 2 ** ((rank // step).bit_length() - 1)
        rank += step * max(1, octave // AN_OCTAVE)
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
            f"{site.name}: its input size is not fixed by the model; pass --input-shape"
        )
    return site.image


def all_choices(site: Site, forms: Sequence[str], block: int) -> list[Choice]:
    """Every form at every candidate rank."""
    return [
        Choice(name, rank) for name in forms for rank in candidate_ranks(FORMS[name], site, block)
    ]


def measure(
    choices: Mapping[str, Sequence[Choice]],
    contexts: Iterable[Context],
    target: Target,
    clock: Callable[[], float],
    *,
    precision: str = FLOAT32,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Latency]:
    """Times of each site's `choices`, by site name; equal measurements are taken once. In int8
    the node itself is measured in int8, too."""
    known: dict[object, Latency] = {}
    times: dict[str, Latency] = {}
    asked = [context for context in contexts if context.site.name in choices]
    for done, context in enumerate(asked):
        progress("time candidates", done, len(asked))
        wanted = tuple(choices[context.site.name])
        key = (context.key, wanted)
        if key not in known:
            known[key] = _measure(context, wanted, target, clock, precision, seed)
        times[context.site.name] = known[key]
    return times


def _measure(
    context: Context,
    choices: Sequence[Choice],
    target: Target,
    clock: Callable[[], float],
    precision: str,
    seed: int,
) -> Latency:
    rng = np.random.default_rng(seed)
    chains = [None, *(chain_of(context.site, choice, rng) for choice in choices)]
    feeds, models = context.feeds(rng), [context.model(chain) for chain in chains]
    where = context.site.name
    runners = [open_runner(for_time(m, precision, feeds, where), target) for m in models]
    dense, *timings = _until_tight([runner.bound(feeds) for runner in runners], clock)
    tried = [
        Measured(c, t.median, speedup(dense, t)) for c, t in zip(choices, timings, strict=True)
    ]
    return Latency(dense.median, tuple(tried))


def _until_tight(
    subjects: Sequence[Callable[[], object]], clock: Callable[[], float]
) -> tuple[Timing, ...]:
    """Turns until the ratio of the first to each of the others is known to `TIGHT`."""
    begun = clock()
    least, end = begun + LEAST, begun + SECONDS
    taken = take_turns(subjects, clock, turns=FIRST, seconds=SECONDS)
    while len(taken[0].seconds) < MOST and clock() < end:
        if clock() > least and _are_tight(taken):
            break
        turns = len(taken[0].seconds)
        more = take_turns(subjects, clock, turns=turns, warmup=0, seconds=end - clock())
        taken = tuple(Timing(a.seconds + b.seconds) for a, b in zip(taken, more, strict=True))
    return taken


def _are_tight(taken: Sequence[Timing]) -> bool:
    """Whether all ratios to the first are; a time alone never is."""
    ratios = [speedup(taken[0], timing) for timing in taken[1:]]
    return bool(ratios) and all(r.high - r.low <= 2 * TIGHT * r.ratio for r in ratios)


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
    """The candidates worth choosing from: measured faster than the Conv, times that do not
    fall with rank in a form, and of a flat step of times the largest rank alone."""
    kept: list[Measured] = []
    for form in dict.fromkeys(m.choice.form for m in latency.tried):
        mine = sorted((m for m in latency.tried if m.choice.form == form), key=_rank)
        kept += [m for m in _steps(mine) if m.is_faster]
    return kept


def _rank(measured: Measured) -> int:
    return measured.choice.rank


def _steps(ranked: Sequence[Measured]) -> list[Measured]:
    """Times made to rise with rank by pooling neighbours that do not (isotonic regression);
    of each pool the largest rank, which is the most accurate, at the pool's mean time."""
    pools: list[list[Measured]] = []
    for measured in ranked:
        pool = [measured]
        while pools and _mean(pool) <= (1 + FLAT) * _mean(pools[-1]):
            pool = pools.pop() + pool
        pools.append(pool)
    return [Measured(p[-1].choice, _mean(p), p[-1].against) for p in pools]


def _mean(pool: Sequence[Measured]) -> float:
    return sum(m.seconds for m in pool) / len(pool)
