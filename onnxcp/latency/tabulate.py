"""The measurement of a latency table on this machine, as `profile` does it.

Needs no fit and no data, and of the packages numpy, onnx, onnxruntime and msgspec only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.errors import ModelError
from onnxcp.graph import io, shapes
from onnxcp.graph.float_parts import globs
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import rewrite
from onnxcp.latency.candidates import (
    AN_OCTAVE,
    THOROUGH,
    Latency,
    Measured,
    Pace,
    all_choices,
    chain_of,
    measure,
    steps,
)
from onnxcp.latency.context import Context, Graph
from onnxcp.latency.shortcut_timing import conditions, straightened, to_time
from onnxcp.latency.table import Check, Table
from onnxcp.measure.compare import time_models
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import speedup
from onnxcp.plan import Choice
from onnxcp.progress import Progress, silent
from onnxcp.quantization.precision import FLOAT32, INT8, refuse_without_kernels
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.runtime.survey import survey
from onnxcp.storage import keys, temporary

CHECK_SECONDS, CHECK_TURNS = 5.0, 1000  # of the whole models in turns, at most

CODE = (
    "chain",
    "forms",
    "graph",
    "latency",
    "measure",
    "quantization",
    "runtime",
)  # of a table


def profile(
    path: Path,
    sources: Sources,
    target: Target,
    forms: Sequence[str],
    *,
    precision: str = FLOAT32,
    progress: Progress = silent,
) -> Table:
    """Time every candidate of a model's sites.

    Raises:
        OnnxcpError: the model is unreadable, a shape is unknown, or a provider does not load.
    """
    refuse_without_kernels(precision, target)
    model = io.load(path)
    inputs = prepare(model.inputs, sources)
    open_runner(path, target)
    model = straightened(model, inputs, target, precision, progress=progress)
    sites, _ = survey(model, inputs.shapes, target, inputs.timed_feeds)
    found = contexts(model, sites, inputs)
    how = (target, forms, precision, sources.seed)
    return tabulate(model, sites, found, inputs, *how, progress)


def contexts(model: io.Model, sites: Sequence[Site], inputs: Inputs) -> list[Context]:
    """The context of every site."""
    graph = Graph(model.proto, shapes.infer(model.proto, inputs.shapes))
    return [graph.context(site) for site in sites]


def identity(
    model: io.Model,
    found: Sequence[Context],
    inputs: Inputs,
    target: Target,
    forms: Sequence[str],
    precision: str,
    octave: int = AN_OCTAVE,
) -> str:
    """The hash of all that a table depends on, except the machine's load."""
    choices = {c.key: all_choices(c.site, forms, target.block, octave) for c in found}
    about = {
        "choices": choices,
        "forms": forms,
        "shortcuts": model.shortcuts,
        "conditions": conditions(inputs, target, precision),
    }
    return keys.key("latency table", CODE, about)


def tabulate(
    model: io.Model,
    sites: Sequence[Site],
    found: Sequence[Context],
    inputs: Inputs,
    target: Target,
    forms: Sequence[str],
    precision: str,
    seed: int,
    progress: Progress = silent,
    pace: Pace = THOROUGH,
) -> Table:
    """Measure the candidates of some sites, and check their sum against whole models.

    A pace with a time limit may leave sites out, and skips the check.
    """
    choices = {s.name: all_choices(s, forms, target.block, pace.octave) for s in sites}
    times = measure(
        choices,
        found,
        target,
        stopwatch(target),
        precision=precision,
        seed=seed,
        is_mixed=precision == INT8,
        pace=pace,
        progress=progress,
    )
    progress("time whole models", 0, 1)
    is_whole = not pace.is_hurried and all(site.name in times for site in sites)
    checked = sites if is_whole else []
    original, total, checks = _checked(model, checked, times, inputs, target, precision, seed)
    return Table(
        model=model.path.name,
        environment=environment(target),
        provider=target.name,
        options=dict(target.options),
        threads=target.count,
        shapes=dict(inputs.shapes),
        forms=tuple(forms),
        precision=precision,
        total=total,
        original=original,
        shortcuts=model.shortcuts,
        rows={c.key: times[c.site.name] for c in found if c.site.name in times},
        checks=checks,
    )


def _checked(
    model: io.Model,
    sites: Sequence[Site],
    rows: Mapping[str, Latency],
    inputs: Inputs,
    target: Target,
    precision: str,
    seed: int,
) -> tuple[float, float, tuple[Check, ...]]:
    """Seconds of the whole model, unchanged and with shortcuts rewritten, in turns with two plans.

    The plans have random chains: every site's fastest candidate, and one that saves half as much.
    """
    menu = {site.name: (rows[site.name].dense, steps(rows[site.name])) for site in sites}
    plans = [{n: _saving(*row, share) for n, row in menu.items() if row[1]} for share in (0.5, 1.0)]
    with temporary.folder() as folder:

        def written(name: str, plan: Mapping[str, Measured]) -> tuple[Path, list[str]]:
            path, choices = folder / name, {n: m.choice for n, m in plan.items()}
            return path, _write(model, sites, choices, path, seed)

        def timed(wholes: Sequence[tuple[Path, Sequence[str]]]) -> list[float]:
            models = [to_time(path, inputs, precision, floats) for path, floats in wholes]
            return _in_turns(models, inputs, target)

        dense = [(model.path, list[str]())]
        dense += [written("straight.onnx", {})] if model.shortcuts else []
        named = enumerate(plans if plans[0] else [])
        chained = [written(f"{number}.onnx", plan) for number, plan in named]
        try:
            times = timed([*dense, *chained])
        except ModelError:  # random weights may give what the model's other nodes refuse
            times = timed(dense)
    original, total = times[0], times[len(dense) - 1]
    saved = [sum(menu[n][0] - m.seconds for n, m in plan.items()) for plan in plans]
    pairs = zip(saved, times[len(dense) :], strict=False)
    return original, total, tuple(Check(total - less, measured) for less, measured in pairs)


def _saving(dense: float, tried: Sequence[Measured], share: float) -> Measured:
    """The candidate whose saving is nearest to a share of the largest one."""
    most = max(dense - m.seconds for m in tried)
    return min(tried, key=lambda m: abs(dense - m.seconds - share * most))


def _write(
    model: io.Model,
    sites: Sequence[Site],
    choices: Mapping[str, Choice],
    path: Path,
    seed: int,
) -> list[str]:
    """Write the model with random chains; returns globs of nodes that int8 leaves in float."""
    rng = np.random.default_rng(seed)
    chains = {s.name: chain_of(s, choices[s.name], rng) for s in sites if s.name in choices}
    made = rewrite(model.proto, chains, sites, metadata={}, external=model.external)
    io.save(made.proto, path, made.external)
    roles = {name: [stage.role for stage in chain] for name, chain in chains.items()}
    return [g for name in chains for g in globs(name, choices[name].floats, roles[name])]


def _in_turns(models: Sequence[Path | bytes], inputs: Inputs, target: Target) -> list[float]:
    """Seconds of the first model, and of the others by their ratios to it.

    Raises:
        TooBusy: the machine is too busy to measure.
    """
    given = (models, inputs.timed_feeds, target)
    first, *others = time_models(*given, turns=CHECK_TURNS, seconds=CHECK_SECONDS)
    ratios = [speedup(first, other).ratio for other in others]
    return [first.median, *(first.median / ratio for ratio in ratios)]
