"""The measured time of every candidate in place of its node, on the target.

Each candidate chain and the node itself, mostly a Conv, become small models of the site's
own shapes and run in turns on the provider. The time of a chain does not depend on its
weights, so no fit is needed. A model's first and last layout conversions fall on both sides
alike: what a candidate saves is the difference of the two times.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.benchmark import Speedup, speedup, take_turns
from onnxcp.chains import chain_model
from onnxcp.conv import Chain, Sizes, Stage, cost, with_bias
from onnxcp.errors import UsageError
from onnxcp.forms import FORMS, Form
from onnxcp.forms.grouped import drawn, largest_rank
from onnxcp.plan import Candidate, Choice, round_up
from onnxcp.progress import Progress, silent
from onnxcp.providers import Target, open_runner
from onnxcp.sites import Site

GROWTH = 1.2  # from one candidate rank to the next: about 10 % of a chain's error
SECONDS = 1.0  # spent on one distinct shape, once eight turns are taken
TURNS = 200


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
    """Multiples of `block` and of the groups, growing by `GROWTH`, while the chain has fewer
    multiply-adds."""
    if form.refuses(site.part) is not None:
        return []
    image, step = _image(site), math.lcm(block, site.group)
    dense, ranks, rank = cost([dense_stage(site)], image).macs, list[int](), step
    while rank <= largest_rank(form, site.shape, site.group) and _macs(form, site, rank) < dense:
        ranks.append(rank)
        rank = max(rank + step, round_up(rank * GROWTH, step))
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
    sites: Iterable[Site],
    target: Target,
    clock: Callable[[], float],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Latency]:
    """Times of each site's `choices`, by site name; equal measurements are taken once.

    Raises:
        UsageError: a site's input size is not known.
    """
    known: dict[object, Latency] = {}
    table: dict[str, Latency] = {}
    asked = [site for site in sites if site.name in choices]
    for done, site in enumerate(asked):
        progress("time candidates", done, len(asked))
        wanted = tuple(choices[site.name])
        key = (_key(site), wanted)
        if key not in known:
            known[key] = _measure_site(site, wanted, target, clock, seed)
        table[site.name] = known[key]
    return table


def _key(site: Site) -> object:
    return (
        site.layer.op,
        site.shape,
        site.group,
        site.geometry,
        site.image,
        site.batch,
        site.bias is not None,
        str(site.kernel.dtype),
    )


def _measure_site(
    site: Site, choices: Sequence[Choice], target: Target, clock: Callable[[], float], seed: int
) -> Latency:
    rng = np.random.default_rng(seed)
    chains: list[Chain] = [(dense_stage(site),)] + [chain_of(site, c, rng) for c in choices]
    dtype, op = site.kernel.dtype, site.layer.op
    feeds = {"x": rng.standard_normal(_read(site)).astype(dtype)}
    shape = feeds["x"].shape
    runners = [open_runner(chain_model(c, shape, dtype, op), target) for c in chains]
    subjects = [_bound(runner, feeds) for runner in runners]
    dense, *timings = take_turns(subjects, clock, turns=TURNS, seconds=SECONDS)
    tried = [
        Measured(c, t.median, speedup(dense, t)) for c, t in zip(choices, timings, strict=True)
    ]
    return Latency(dense.median, tuple(tried))


def _read(site: Site) -> Sizes:
    """Shape of what a site reads."""
    channels = site.shape[1] * site.group
    if site.geometry.dimensions:
        return (site.batch, channels, *_image(site))
    return (site.batch, *_image(site), channels)


def _bound(runner: Callable[..., object], feeds: dict[str, np.ndarray]) -> Callable[[], object]:
    return lambda: runner(feeds)


def chain_of(site: Site, choice: Choice, rng: np.random.Generator) -> Chain:
    """A chain of the choice's form and rank with random weights."""
    form = FORMS[choice.form]
    made = drawn(form, site.shape, site.group, choice.rank, site.geometry, rng)
    return with_bias(made, site.bias)


def candidates(name: str, latency: Latency) -> list[Candidate]:
    """The candidates of a site that are measured faster than its Conv."""
    return [Candidate(name, m.choice, m.seconds) for m in latency.tried if m.is_faster]
