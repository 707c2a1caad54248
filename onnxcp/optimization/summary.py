"""What a run found, put into a `Report`: a row for every layer, records, warnings."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from onnxcp import __version__
from onnxcp.chain import cost
from onnxcp.fitting.plan_chains import NO_CHAINS, Chains
from onnxcp.graph.file_contents import Stored, stored
from onnxcp.graph.layers import Layer
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import LISTED_INITIALIZERS
from onnxcp.latency.table import Check
from onnxcp.measure.evidence import doubt, is_coarse, weigh
from onnxcp.measure.latency_record import latency_record
from onnxcp.measure.timing import speedup
from onnxcp.optimization import kept_layers
from onnxcp.optimization.decision import Decision, foreign
from onnxcp.optimization.outcome import Outcome, Recovered, name_of
from onnxcp.optimization.reasons import Kind
from onnxcp.optimization.run import Run
from onnxcp.options.budget import MAX_ERROR
from onnxcp.quantization.convert import RANGED
from onnxcp.quantization.precision import FLOAT32, INT8
from onnxcp.quantization.scheme import fastest
from onnxcp.results import (
    KEPT,
    AccuracyRecord,
    CheckRecord,
    EpochRecord,
    FinetuneRecord,
    ModelRecord,
    QuantizationRecord,
    Report,
    SearchRecord,
    SiteRecord,
)
from onnxcp.runtime.environment import environment
from onnxcp.training.distill import Distilled
from onnxcp.words import ACCEPTED, plural


def summarise(run: Run, outcome: Outcome, decision: Decision, command: str) -> Report:
    """The report of a run. A plan that was not accepted leaves every site as it was."""
    chains = outcome.chains if decision.accepted else NO_CHAINS
    refused = {} if decision.accepted else kept_layers.not_accepted(outcome.plan, decision.reason)
    sites = _sites(run, replace(outcome, kept={**outcome.kept, **refused}), chains)
    return Report(
        tool={"name": "onnxcp", "version": __version__},
        command=command,
        verdict=decision.words,
        reason={"kind": decision.reason.code, **decision.reason.facts},
        model=_model(run, outcome, decision, sites),
        environment=environment(run.settings.target),
        provider=run.settings.target.name,
        precision=_precision(run, outcome, decision),
        settings=_settings(run, outcome),
        sites=sites,
        plan={n: c.row() for n, c in sorted(chains.plan.choices.items())},
        exit_code=decision.exit_code,
        accuracy=_accuracy(outcome),
        latency=None
        if outcome.timings is None
        else latency_record(outcome.timings, run.settings.target, run.inputs.shapes),
        search=_search(run, outcome),
        pareto=outcome.front,
        verification=outcome.verification,
        finetune=_finetune(run, outcome),
        quantization=_quantization(run, outcome),
        baseline=run.baseline,
        warnings=tuple(_warnings(run, outcome)),
        stages=run.time.close(),
    )


def _sites(run: Run, outcome: Outcome, chains: Chains) -> tuple[SiteRecord, ...]:
    own = run.model.shortcuts  # no layers of the model as it came
    kept = [_skipped(s.layer, s.reason, s.code) for s in run.skips if s.layer.name not in own]
    return tuple([_site(run, site, outcome, chains) for site in run.sites] + kept)


def _skipped(layer: Layer, reason: str, kind: str) -> SiteRecord:
    return SiteRecord(
        name=layer.name,
        shape=layer.shape or (),
        stride=layer.strides,
        decision=KEPT,
        reason=reason,
        kind=kind,
        macs_before=layer.macs,
        macs_after=layer.macs,
    )


def _site(run: Run, site: Site, outcome: Outcome, chains: Chains) -> SiteRecord:
    choice = chains.plan.choices.get(site.name)
    if choice is None:
        return _kept(site, outcome)
    row, fitted = outcome.latency[site.name], chains.fits[site.name]
    chain, measured = chains.by_site[site.name], row.measured(choice)
    why = kept_layers.replaced(row, choice, is_here=not foreign(run))
    return SiteRecord(
        name=site.name,
        shape=site.shape,
        stride=site.geometry.strides,
        decision=choice.form,
        reason=why.words,
        kind=why.code,
        macs_before=site.layer.macs,
        macs_after=cost(chain, site.image).macs if site.image is not None else None,
        rank=choice.rank,
        floats=choice.floats or None,
        error=_error(run, outcome, site),
        outcome=fitted.outcome.value,
        sensitivity_before=fitted.sensitivity_before,
        sensitivity_after=fitted.sensitivity_after,
        ms_before=None if measured is None else 1e3 * row.dense,
        ms_after=None if measured is None else 1e3 * measured.seconds,
        fit_seconds=fitted.seconds,
    )


def _kept(site: Site, outcome: Outcome) -> SiteRecord:
    why, row = outcome.kept[site.name], outcome.latency.get(site.name)
    before = None if row is None or row.busy is not None else 1e3 * row.dense
    record = _skipped(site.layer, why.words, why.code)
    return replace(record, stride=site.geometry.strides, ms_before=before, ms_after=before)


def _error(run: Run, outcome: Outcome, site: Site) -> float:
    """Of the kernel that is written: as trained, or as fitted."""
    trained = (outcome.recovered or Recovered()).errors
    if site.name in trained:
        return trained[site.name]
    return run.fits.stored_error(outcome.chains, site.name)


def _model(
    run: Run, outcome: Outcome, decision: Decision, sites: Sequence[SiteRecord]
) -> ModelRecord:
    straight = [s.layer for s in run.skips if s.layer.name in run.model.shortcuts]
    is_rewritten = any(s.decision != KEPT for s in sites)
    before = after = stored(run.model.path)
    if decision.accepted:
        assert outcome.staged is not None
        after = stored(run.builder.deployed(outcome.staged))
    return ModelRecord(
        path=str(run.model.path),
        sha256=run.model.sha256,
        output=str(run.settings.output) if decision.exit_code == 0 else None,
        macs_before=sum(s.macs_before or 0 for s in sites),
        macs_after=sum(s.macs_after or 0 for s in sites)
        + is_rewritten * sum(layer.macs or 0 for layer in straight),
        parameters_before=before.parameters,
        parameters_after=after.parameters,
        bytes_before=before.size,
        bytes_after=after.size,
        written=_written(outcome, decision),
        still_read=_still_read(run, sites, after),
        shortcuts=run.model.shortcuts if is_rewritten else (),
    )


def _written(outcome: Outcome, decision: Decision) -> str | None:
    """What the file is, among all that could have been written."""
    if decision.accepted:
        return name_of(outcome)
    return "the model as it came" if decision.exit_code == 0 else None


def _still_read(run: Run, sites: Sequence[SiteRecord], after: Stored) -> tuple[str, ...]:
    """Layers whose weight stays in the file beside their chain, because others read it."""
    replaced = {s.name for s in sites if s.decision != KEPT}
    nodes = run.model.proto.graph.node
    weights = {s.name: nodes[s.index].input[1] for s in run.sites if s.name in replaced}
    return tuple(name for name, weight in weights.items() if weight in after.names)


def _quantization(run: Run, outcome: Outcome) -> QuantizationRecord | None:
    if outcome.precision == FLOAT32 and not outcome.rivals:
        return None
    calibrating = run.inputs.calibration
    return QuantizationRecord(
        scheme=asdict(fastest()) if run.settings.precision == INT8 else {},
        samples=0 if calibrating is None else len(calibrating.spaced(RANGED)),
        chained=outcome.chained,
        rivals=outcome.rivals,
    )


def _precision(run: Run, outcome: Outcome, decision: Decision) -> str:
    """int8 where that is written; else the dtype of the model's kernels, that of most sites."""
    if decision.accepted and outcome.precision != FLOAT32:
        return outcome.precision
    counts = Counter(str(s.kernel.dtype) for s in run.sites)
    return counts.most_common(1)[0][0] if counts else "float32"


def _calibrating(run: Run) -> int:
    """How many samples the norm of the fits is of; 0 for the plain one."""
    samples = run.inputs.calibration
    if samples is None or run.fits.samples is None:
        return 0
    return run.fits.count or len(samples)


def _settings(run: Run, outcome: Outcome) -> dict[str, Any]:
    settings, sources = run.settings, run.settings.sources
    return {
        "form": settings.plan.form,
        "strategy": settings.plan.strategy,
        "budget": outcome.budget.words,
        "rank": list(settings.plan.rank),
        "include": list(settings.plan.include),
        "exclude": list(settings.plan.exclude),
        "data": list(sources.data),
        "calibration": list(sources.calibration),
        "train": list(sources.train),
        "calibration_samples": _calibrating(run),
        "sample_roles": run.sample_roles,
        "bias_correction": run.recipe.correct_bias,
        "sequential": run.recipe.sequential,
        "preprocess": sources.preprocess,
        "samples": sources.samples,
        "target_speedup": settings.limits.target_speedup,
        "latency": None if settings.latency is None else str(settings.latency),
        "time_budget": settings.plan.seconds,
        "seed": settings.run.seed,
        "provider_options": dict(settings.target.options),
        "threads": settings.target.count,
        "threads_from": settings.target.why_count,
    }


def _warnings(run: Run, outcome: Outcome) -> Iterator[str]:
    """What a reader must know; that accuracy was not measured always comes first."""
    if run.inputs.samples is None:
        yield (
            "ACCURACY WAS NOT MEASURED: the budget is the change of the outputs on synthetic "
            "inputs; pass <<data>> (an .npz or a folder of images with labels.csv) to judge by it"
        )
    yield from run.outputs.notes
    if run.baseline.finding is not None:
        yield f"{ACCEPTED}: {run.baseline.finding}"
    if outcome.trail and not run.inputs.is_held_out and run.inputs.samples is not None:
        yield (
            f"the same {plural(len(run.inputs.samples), 'sample')} of <<data>> judged the search "
            "and gives the accuracy shown: on others the model may lose more; give more samples"
        )
    yield from _coarse(run, outcome)
    yield from _doubts(run, outcome)
    yield from run.inputs.notes
    differences = foreign(run)
    if differences:
        yield (
            f"ranks were chosen by times of another machine ({'; '.join(differences)}): the "
            "speed-up in the verdict is that of the latency table, times below are this machine's"
        )
    if outcome.table is not None and outcome.table.doubt is not None:
        yield outcome.table.doubt
    yield from _hurried(run, outcome)
    if outcome.timings and any(t.is_noisy for t in outcome.timings):
        yield "the times are noisy: close other programs, or raise <<iterations>>"
    yield from run.model.notes
    yield from _overridable(run)


def _hurried(run: Run, outcome: Outcome) -> Iterator[str]:
    """What the time budget cost."""
    if not run.time.is_limited or not outcome.plan.choices:
        return
    short = [site.name for site in run.chosen if _is_short(outcome, site)]
    done = []
    if run.fits.drafts:
        done.append("chains are drafts of their fits")
    if run.fits.count:
        done.append(f"{run.fits.count} samples calibrated")
    if short:
        done.append(f"{len(short)} layers were not looked at")
    if outcome.trail is not None and outcome.trail.is_late:
        done.append("the search was ended")
    if done:
        yield f"in a hurry: {', '.join(done)}; a longer <<time_budget>> may find more{run.remedy}"


def _is_short(outcome: Outcome, site: Site) -> bool:
    """Whether there was no time for a layer."""
    why = outcome.kept.get(site.name)
    return why is not None and why.kind in (Kind.NOT_TIMED, Kind.NOT_FITTED)


def _accuracy(outcome: Outcome) -> AccuracyRecord | None:
    """With what the samples say of the budget."""
    found = outcome.accuracy
    weighed = None if found is None else weigh(found, outcome.plans_judged)
    if found is None or weighed is None:
        return found
    return replace(found, evidence=weighed.evidence.value, enough=weighed.enough)


def _coarse(run: Run, outcome: Outcome) -> Iterator[str]:
    """Whether the search was held to the change of outputs, too."""
    found, searched = outcome.accuracy, run.inputs.search_samples
    if found is None or found.budget is None or searched is None or outcome.trail is None:
        return
    if is_coarse(found.metric, len(searched), found.budget):
        yield (
            f"one wrong answer of the {plural(len(searched), 'sample')} that steer the search is "
            f"over the budget of {found.budget:.4g}: so its plans may not change the outputs by "
            f"more than {MAX_ERROR:.0%} either, as without data"
        )


def _doubts(run: Run, outcome: Outcome) -> Iterator[str]:
    """Whether the samples decide the budget."""
    found, plans = outcome.accuracy, outcome.plans_judged
    weighed = None if found is None else weigh(found, plans)
    if found is not None and weighed is not None and run.inputs.data is not None:
        share = found.samples / max(found.samples, len(run.inputs.data))
        words = doubt(found, weighed, plans=plans, share=share)
        if words is not None:
            yield words


def _search(run: Run, outcome: Outcome) -> SearchRecord | None:
    trail, table, inputs = outcome.trail, outcome.table, run.inputs
    if trail is None or table is None:
        return None
    counts = {
        "calibration": _calibrating(run),
        "search": len(inputs.search_samples or inputs.synthetic),
        "final": len(inputs.samples or inputs.synthetic),
    }
    return SearchRecord(
        strategy=run.settings.plan.strategy,
        objective=outcome.budget.words,
        samples=counts,
        held_out=inputs.is_held_out,
        tried=trail.tried,
        is_late=trail.is_late,
        seconds=trail.seconds,
        predicted_ms=1e3 * (trail.predicted or table.total),
        scale=table.scale_of(outcome.latency.values()),
        is_reliable=table.is_reliable,
        checks=tuple(map(_check, table.checks)),
        foreign=tuple(foreign(run)),
        judged=trail.judged,
    )


def _check(found: Check) -> CheckRecord:
    """No model takes less than nothing."""
    predicted = 1e3 * found.predicted if found.predicted > 0 else None
    return CheckRecord(predicted, 1e3 * found.measured)


def _finetune(run: Run, outcome: Outcome) -> FinetuneRecord | None:
    recipe, found = run.settings.training, outcome.recovered or Recovered()
    if recipe is None:
        return None
    taught, without = found.taught, found.without
    trained = None if taught is None else taught.trained
    timings = None if without is None else without.timings
    return FinetuneRecord(
        epochs=_epochs(taught),
        rounded=_epochs(found.rounded),
        best_epoch=None if trained is None else trained.best,
        stopped=None if trained is None else trained.stopped,
        parity=None if taught is None else taught.parity,
        recipe=asdict(recipe if taught is None else taught.recipe),
        samples={} if taught is None else taught.samples,
        before=found.before,
        without_accuracy=None if without is None else without.accuracy,
        without_speedup=None if timings is None else speedup(*timings).ratio,
        trials=found.trials,
        seconds=found.seconds,
    )


def _epochs(taught: Distilled | None) -> tuple[EpochRecord, ...]:
    return () if taught is None else tuple(taught.trained.epochs)


def _overridable(run: Run) -> Iterator[str]:
    graph = run.model.proto.graph
    stored = {t.name for t in graph.initializer}
    listed = [i.name for i in graph.input if i.name in stored]
    if listed and run.model.proto.ir_version > LISTED_INITIALIZERS:
        yield (
            f"{len(listed)} stored weights are graph inputs too, which keeps ONNX Runtime from "
            "treating them as constant; export with keep_initializers_as_inputs=False"
        )
