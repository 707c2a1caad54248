"""What a run found, put into a `Report`: a row for every layer, records, warnings."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from onnxcp import __version__, files
from onnxcp.benchmark import speedup
from onnxcp.conv import Chain, cost
from onnxcp.decision import Decision, foreign
from onnxcp.environment import environment
from onnxcp.forms import FORMS
from onnxcp.job import Job
from onnxcp.latency import Latency
from onnxcp.lessons import Taught
from onnxcp.narrowing import RANGED
from onnxcp.outcome import Outcome, Recovered
from onnxcp.plan import Choice, Plan
from onnxcp.precision import FLOAT32, INT8
from onnxcp.report.record import (
    KEPT,
    CheckRecord,
    EpochRecord,
    FinetuneRecord,
    LatencyRecord,
    ModelRecord,
    QuantizationRecord,
    Report,
    SearchRecord,
    SiteRecord,
)
from onnxcp.rewrite import LISTED_INITIALIZERS
from onnxcp.scheme import fastest
from onnxcp.sites import Layer, Site


def summarise(job: Job, outcome: Outcome, decision: Decision, command: str) -> Report:
    """The report of a run. A plan that was not accepted leaves every site as it was."""
    plan = outcome.plan if decision.accepted else Plan()
    sites = _sites(job, outcome, plan)
    return Report(
        tool={"name": "onnxcp", "version": __version__},
        command=command,
        verdict=decision.words,
        model=_model(job, sites, decision.exit_code),
        environment=environment(job.settings.target),
        provider=job.settings.target.name,
        precision=_precision(job, outcome, decision),
        settings=_settings(job, outcome),
        sites=sites,
        plan={n: c.row() for n, c in sorted(plan.choices.items())},
        exit_code=decision.exit_code,
        accuracy=outcome.accuracy,
        latency=_latency(job, outcome),
        search=_search(job, outcome),
        pareto=outcome.front,
        verification=outcome.verification,
        finetune=_finetune(job, outcome),
        quantization=_quantization(job, outcome),
        warnings=tuple(_warnings(job, outcome)),
    )


def _sites(job: Job, outcome: Outcome, plan: Plan) -> tuple[SiteRecord, ...]:
    own = job.model.shortcuts  # no layers of the model as it came
    kept = [_skipped(s.layer, s.reason) for s in job.skips if s.layer.name not in own]
    return tuple([_site(job, site, outcome, plan) for site in job.sites] + kept)


def _skipped(layer: Layer, reason: str) -> SiteRecord:
    return SiteRecord(
        name=layer.name,
        shape=layer.shape or (),
        stride=layer.strides,
        decision=KEPT,
        reason=reason,
        macs_before=layer.macs,
        macs_after=layer.macs,
    )


def _site(job: Job, site: Site, outcome: Outcome, plan: Plan) -> SiteRecord:
    row = outcome.latency.get(site.name)
    choice = plan.choices.get(site.name)
    before = None if row is None else 1e3 * row.dense
    if choice is None:
        record = _skipped(site.layer, _why_kept(job, site, outcome, row))
        return replace(record, stride=site.geometry.strides, ms_before=before, ms_after=before)
    fitted, chain = job.fits.get(site.name, choice), _chain(job, site, choice)
    measured = next(m for m in row.tried if m.choice == choice) if row else None
    return SiteRecord(
        name=site.name,
        shape=site.shape,
        stride=site.geometry.strides,
        decision=choice.form,
        reason=f"measured {measured.against.verdict()}" if measured else "as the plan says",
        macs_before=site.layer.macs,
        macs_after=cost(chain, site.image).macs if site.image is not None else None,
        rank=choice.rank,
        floats=choice.floats or None,
        error=_error(job, outcome, site, choice),
        outcome=fitted.outcome.value,
        sensitivity_before=fitted.sensitivity_before,
        sensitivity_after=fitted.sensitivity_after,
        ms_before=before,
        ms_after=1e3 * measured.seconds if measured else None,
        fit_seconds=fitted.seconds,
    )


def _error(job: Job, outcome: Outcome, site: Site, choice: Choice) -> float:
    """Of the kernel that is written: as trained, or as fitted."""
    trained = (outcome.recovered or Recovered()).errors
    if site.name in trained:
        return trained[site.name]
    return job.fits.stored_error(site.name, choice)


def _why_kept(job: Job, site: Site, outcome: Outcome, row: Latency | None) -> str:
    tried = outcome.plan.choices.get(site.name)
    if tried is not None:
        return f"tried as {tried.form} at rank {tried.rank}, but the plan was not accepted"
    if row is None or not row.tried:
        return _why_untried(job, site)
    best = min(row.tried, key=lambda m: m.seconds)
    text = f"{best.choice.form} at rank {best.choice.rank}: {best.against.verdict()}"
    if not any(m.is_faster for m in row.tried):
        return f"no chain is measured faster; the best, {text}"
    if not outcome.plan.choices:
        return f"no plan met the budget; the fastest chain, {text}, was not accurate enough"
    return f"no faster chain is accurate enough; the fastest, {text}"


def _why_untried(job: Job, site: Site) -> str:
    refusals = [r for f in job.settings.forms if (r := FORMS[f].refuses(site.part))]
    if site not in job.chosen:
        return "left out by --include or --exclude"
    if len(refusals) == len(job.settings.forms):
        return refusals[0]
    if job.settings.is_forced:
        return "no rank is given for it"
    return "no candidate rank saves multiply-adds"


def _model(job: Job, sites: Sequence[SiteRecord], exit_code: int) -> ModelRecord:
    stored = sum(math.prod(t.dims) for t in files.tensors(job.model.proto))
    change = sum(_parameter_change(job, s) for s in sites if s.decision != KEPT)
    straight = [s.layer for s in job.skips if s.layer.name in job.model.shortcuts]
    added = sum(layer.parameters for layer in straight)
    is_rewritten = any(s.decision != KEPT for s in sites)
    return ModelRecord(
        path=str(job.model.path),
        sha256=job.model.sha256,
        output=str(job.settings.output) if exit_code == 0 else None,
        macs_before=sum(s.macs_before or 0 for s in sites),
        macs_after=sum(s.macs_after or 0 for s in sites)
        + is_rewritten * sum(layer.macs or 0 for layer in straight),
        parameters_before=stored - added,
        parameters_after=stored + change if is_rewritten else stored - added,
        shortcuts=job.model.shortcuts if is_rewritten else (),
    )


def _parameter_change(job: Job, record: SiteRecord) -> int:
    site = next(s for s in job.sites if s.name == record.name)
    chain = _chain(job, site, Choice(record.decision, record.rank or 0))
    new_bias = chain[-1].bias if site.bias is None else None
    weights = sum(stage.weight.size for stage in chain)
    return weights - site.kernel.size + (0 if new_bias is None else new_bias.size)


def _chain(job: Job, site: Site, choice: Choice) -> Chain:
    return job.fits.chains(Plan({site.name: choice}))[site.name]


def _quantization(job: Job, outcome: Outcome) -> QuantizationRecord | None:
    if outcome.precision == FLOAT32 and not outcome.rivals:
        return None
    calibrating = job.inputs.calibration
    return QuantizationRecord(
        scheme=asdict(fastest()) if job.settings.precision == INT8 else {},
        samples=0 if calibrating is None else len(calibrating.spaced(RANGED)),
        chained=outcome.chained,
        rivals=outcome.rivals,
    )


def _precision(job: Job, outcome: Outcome, decision: Decision) -> str:
    """int8 where that is written; else the dtype of the model's kernels, that of most sites."""
    if decision.accepted and outcome.precision != FLOAT32:
        return outcome.precision
    counts = Counter(str(s.kernel.dtype) for s in job.sites)
    return counts.most_common(1)[0][0] if counts else "float32"


def _calibrating(job: Job) -> int:
    """How many samples the norm of the fits is of; 0 for the plain one."""
    samples = job.inputs.calibration
    return 0 if samples is None or job.fits.samples is None else len(samples)


def _settings(job: Job, outcome: Outcome) -> dict[str, Any]:
    settings, sources = job.settings, job.settings.sources
    return {
        "form": settings.form,
        "strategy": settings.strategy,
        "budget": outcome.budget.words,
        "rank": list(settings.ranks),
        "include": list(settings.include),
        "exclude": list(settings.exclude),
        "data": list(sources.data),
        "calibration": list(sources.calibration),
        "train": list(sources.train),
        "calibration_samples": _calibrating(job),
        "sample_roles": job.sample_roles,
        "bias_correction": job.recipe.correct_bias,
        "sequential": job.recipe.sequential,
        "preprocess": sources.preprocess,
        "samples": sources.samples,
        "target_speedup": settings.target_speedup,
        "latency": None if settings.latency is None else str(settings.latency),
        "time_budget": settings.time_budget,
        "seed": settings.seed,
        "provider_options": dict(settings.target.options),
    }


def _latency(job: Job, outcome: Outcome) -> LatencyRecord | None:
    if outcome.timings is None:
        return None
    ratio = speedup(*outcome.timings)
    before, after = outcome.timings
    return LatencyRecord(
        before=before.milliseconds(),
        after=after.milliseconds(),
        speedup=ratio.ratio,
        speedup_ci=(ratio.low, ratio.high),
        turns=len(before.seconds),
        threads=job.settings.target.threads,
        provider=job.settings.target.name,
        shapes=dict(job.inputs.shapes),
    )


def _warnings(job: Job, outcome: Outcome) -> Iterator[str]:
    """What a reader must know; that accuracy was not measured always comes first."""
    if job.inputs.samples is None:
        yield (
            "ACCURACY WAS NOT MEASURED: the budget is the change of the outputs on synthetic "
            "inputs; pass --data (an .npz or a folder of images with labels.csv) to judge by it"
        )
    if outcome.trail and not job.inputs.is_held_out and job.inputs.samples is not None:
        yield (
            f"{len(job.inputs.samples)} sample of --data judged the search and gives the accuracy "
            "shown: on other samples the model may lose more; give more samples"
        )
    yield from _doubts(outcome)
    differences = foreign(job)
    if differences:
        yield (
            f"ranks were chosen by times of another machine ({'; '.join(differences)}): the "
            "speed-up in the verdict is that of the latency table, times below are this machine's"
        )
    if outcome.table is not None and outcome.table.disagrees:
        miss = max((check.miss for check in outcome.table.checks), key=abs)
        yield (
            f"the latency table missed a whole model's time by {miss:+.0%}: savings are scaled "
            f"by {outcome.table.scale:.2f}"
        )
    if outcome.trail is not None and outcome.trail.is_late:
        yield "the time budget ended the search: a longer one may find a faster plan"
    if outcome.timings and any(t.is_noisy for t in outcome.timings):
        yield "the times are noisy: close other programs, or raise --iterations"
    yield from job.model.notes
    yield from _overridable(job)


def _doubts(outcome: Outcome) -> Iterator[str]:
    """Whether the samples can tell the budget."""
    found = outcome.accuracy
    if found is None or found.budget is None or found.drop_ci is None:
        return
    low, high = found.drop_ci
    if high - low > found.budget:
        yield (
            f"{found.samples} samples are too few to tell the budget of {found.budget:.4g}: the "
            f"drop's 95 % interval, {low:+.4f} to {high:+.4f}, is wider"
        )
    elif high > found.budget:
        yield (
            f"{found.samples} samples are too few to be sure of the budget: the drop's 95 % "
            f"interval reaches {high:.4f}, the budget is {found.budget:.4g}"
        )


def _search(job: Job, outcome: Outcome) -> SearchRecord | None:
    trail, table, inputs = outcome.trail, outcome.table, job.inputs
    if trail is None or table is None:
        return None
    counts = {
        "calibration": _calibrating(job),
        "search": len(inputs.searched or inputs.synthetic),
        "final": len(inputs.samples or inputs.synthetic),
    }
    return SearchRecord(
        strategy=job.settings.strategy,
        objective=outcome.budget.words,
        samples=counts,
        held_out=inputs.is_held_out,
        tried=trail.tried,
        is_late=trail.is_late,
        seconds=trail.seconds,
        predicted_ms=1e3 * (trail.predicted or table.total),
        scale=table.scale,
        checks=tuple(CheckRecord(1e3 * c.predicted, 1e3 * c.measured) for c in table.checks),
        foreign=tuple(foreign(job)),
        judged=trail.judged,
    )


def _finetune(job: Job, outcome: Outcome) -> FinetuneRecord | None:
    recipe, found = job.settings.training, outcome.recovered or Recovered()
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


def _epochs(taught: Taught | None) -> tuple[EpochRecord, ...]:
    return () if taught is None else tuple(EpochRecord(**asdict(e)) for e in taught.trained.epochs)


def _overridable(job: Job) -> Iterator[str]:
    graph = job.model.proto.graph
    stored = {t.name for t in graph.initializer}
    listed = [i.name for i in graph.input if i.name in stored]
    if listed and job.model.proto.ir_version > LISTED_INITIALIZERS:
        yield (
            f"{len(listed)} stored weights are graph inputs too, which keeps ONNX Runtime from "
            "treating them as constant; export with keep_initializers_as_inputs=False"
        )
