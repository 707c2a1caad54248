"""`optimize` with exact passes alone: no data, no budget, nothing lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxcp import __version__
from onnxcp.artifacts.publishing import publish
from onnxcp.data.roles import Inputs, prepare
from onnxcp.errors import PlanError
from onnxcp.graph import io, passes, provenance, subnormals
from onnxcp.graph.file_contents import stored
from onnxcp.graph.pass_table import PASSES
from onnxcp.measure.latency_record import latency_record
from onnxcp.measure.timing import Timing, speedup
from onnxcp.optimization.exact import Exact, PassChoice
from onnxcp.optimization.output_files import reserve_outputs
from onnxcp.optimization.settings import Settings
from onnxcp.plan import Plan, Recipe, from_json, plan_file, refuse_another_source, to_json
from onnxcp.progress import Progress, silent
from onnxcp.results import ModelRecord, Report, VerificationRecord
from onnxcp.runtime.environment import environment
from onnxcp.runtime.sessions import open_runner
from onnxcp.runtime.survey import inferred
from onnxcp.storage import temporary

SECONDS, TURNS = 20.0, 400  # of the last comparison with the original, at most
NONE_APPLIES, NOT_FASTER, FASTER, REPLAYED = "no-pass", "not-faster", "exact", "replayed"


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a run found: the passes, and the times of the original and of the model with them,
    None where nothing was timed."""

    exact: Exact
    timings: tuple[Timing, Timing] | None
    kind: str
    words: str

    @property
    def is_written(self) -> bool:
        return self.kind in (FASTER, REPLAYED)


def optimize_exactly(
    settings: Settings,
    command: str = "",
    progress: Progress = silent,
    documents: Callable[[Report], Mapping[Path, str]] | None = None,
) -> Report:
    """Apply those exact passes that make a model measurably faster, or say why none does.

    The model and its plan are written if the report's exit code is 0, and `documents` in any case:
    all of them or, after an error, nothing.

    Raises:
        OnnxcpError: unusable input, option, plan, provider or output, or a machine that is too
            busy to measure; or a pass that changes what the model computes (`SurgeryError`).
    """
    reserve_outputs(settings)
    model = io.load(settings.model)
    subnormals.refuse(settings.model, model.proto)
    inputs = prepare(model.inputs, settings.sources)
    open_runner(settings.model, settings.target)(inputs.timed_feeds)  # what it refuses is said now
    with temporary.folder(settings.output.parent) as folder:
        choice = PassChoice(model, inputs, settings.target, folder, settings.plan.no_pass, progress)
        found = _found(choice, settings)
        staged = folder / settings.output.name
        _stage(model, found, staged)
        report = _report(settings, model, inputs, found, staged, command)
        texts = dict({} if documents is None else documents(report))
        if report.exit_code == 0:
            names = found.exact.names if found.is_written else ()
            recipe = Recipe(seed=settings.run.seed, passes=names)
            texts[plan_file(settings.output)] = to_json(Plan(), model.sha256, recipe)
        files = [(staged, settings.output)] if report.exit_code == 0 else []
        publish(texts, files, overwrite=settings.run.overwrite)
        return report


def _found(choice: PassChoice, settings: Settings) -> Found:
    """The passes of a plan, or those that pay."""
    if settings.plan.plan is not None:
        names = _planned(choice, settings.plan.plan)
        text = f"exact passes as planned: {', '.join(names)}"
        return Found(choice.of(names), None, REPLAYED, text)
    candidates = choice.candidates()
    if not candidates:
        text = "no exact pass applies to the model"
        return Found(choice.of(()), None, NONE_APPLIES, text)
    exact = choice.best()
    if not exact.names:
        tried = ", ".join(record.name for record in exact.records)
        text = f"no exact pass makes the model clearly faster (tried: {tried})"
        return Found(exact, None, NOT_FASTER, text)
    timings = choice.timed((), exact.names, TURNS, SECONDS)
    ratio, names = speedup(*timings), exact.names
    if not ratio.is_faster:
        text = f"the model with {', '.join(names)} is not faster: {ratio.verdict()}"
        return Found(exact, timings, NOT_FASTER, text)
    text = f"{ratio.verdict()}, computing the same: {', '.join(names)}"
    return Found(exact, timings, FASTER, text)


def _planned(choice: PassChoice, plan: Path) -> tuple[str, ...]:
    """The passes that a plan names.

    Raises:
        PlanError: a plan of another model, one that replaces layers, or an unknown pass.
    """
    refuse_another_source(plan, choice.model.sha256, choice.model.path)
    chains, recipe = from_json(plan)
    if chains.choices:
        raise PlanError(f"{plan}: replaces layers by chains; replay it without <<exact>>")
    if not recipe.passes:
        raise PlanError(f"{plan}: names no exact pass; replay it without <<exact>>")
    for name in recipe.passes:
        if name not in PASSES:
            raise PlanError(
                f"{plan}: no exact pass is called {name!r}; there are {', '.join(PASSES)}"
            )
    return recipe.passes


def _stage(model: io.Model, found: Found, path: Path) -> None:
    """Write the result into the run's folder: the changed model, or a copy of the input."""
    if found.is_written:
        names = found.exact.names
        _note(found.exact.proto, model, names)
        io.save(found.exact.proto, path, model.external)
    else:
        io.copy(model.path, path)


def _note(proto: onnx.ModelProto, model: io.Model, names: tuple[str, ...]) -> None:
    """Note in a model's metadata how it was made."""
    made_of = provenance.read(model.proto)
    added = {
        "onnxcp.version": __version__,
        **provenance.entries(model.sha256, made_of, {}),
    }
    entries = {entry.key: entry for entry in proto.metadata_props}
    for key, value in sorted(added.items()):
        (entries.get(key) or proto.metadata_props.add(key=key)).value = value
    passes.note(proto, names)


def _report(
    settings: Settings,
    model: io.Model,
    inputs: Inputs,
    found: Found,
    staged: Path,
    command: str,
) -> Report:
    is_written = found.is_written
    unchanged = not is_written and settings.asked.budget.allow_unchanged
    prefix = "" if is_written else "left unchanged, " if unchanged else "nothing written, "
    exit_code = 0 if is_written or unchanged else 1
    exact = found.exact
    return Report(
        tool={"name": "onnxcp", "version": __version__},
        command=command,
        verdict=prefix + found.words,
        reason={"kind": found.kind, "passes": list(exact.names) if is_written else []},
        model=_model(model, inputs, found, staged, settings.output if exit_code == 0 else None),
        environment=environment(settings.target),
        provider=settings.target.name,
        settings={
            "exact": True,
            "no_pass": list(settings.plan.no_pass),
            "seed": settings.run.seed,
            "provider_options": dict(settings.target.options),
            "threads": settings.target.count,
            "threads_from": settings.target.why_count,
        },
        sites=(),
        plan={},
        exit_code=exit_code,
        latency=None
        if found.timings is None
        else latency_record(found.timings, settings.target, inputs.shapes),
        verification=VerificationRecord(
            True, exact.error, exact.tolerance, len(inputs.surgery_feeds)
        )
        if found.is_written
        else None,
        passes=exact.records,
        warnings=(*model.notes, *inputs.notes),
    )


def _model(
    model: io.Model, inputs: Inputs, found: Found, staged: Path, output: Path | None
) -> ModelRecord:
    before, after = stored(model.path), stored(staged)
    changed = replace(model, proto=found.exact.proto) if found.is_written else model
    return ModelRecord(
        path=str(model.path),
        sha256=model.sha256,
        output=None if output is None else str(output),
        macs_before=_macs(model, inputs),
        macs_after=_macs(changed, inputs),
        parameters_before=before.parameters,
        parameters_after=after.parameters,
        bytes_before=before.size,
        bytes_after=after.size,
        written="exact passes alone" if found.is_written else None,
    )


def _macs(model: io.Model, inputs: Inputs) -> int:
    """Multiply-adds of one sample in all layers."""
    sites, skips = inferred(model, inputs.shapes)
    layers = [*(site.layer for site in sites), *(skip.layer for skip in skips)]
    return sum(layer.macs or 0 for layer in layers)
