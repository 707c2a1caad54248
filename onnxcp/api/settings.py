"""Groups of options as the runs take them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxcp.api.keywords import grouped
from onnxcp.api.staging import Staging
from onnxcp.data.roles import Sources
from onnxcp.errors import UsageError
from onnxcp.forms import AUTO, FORMS
from onnxcp.graph.input_specs import parse_shape
from onnxcp.measure.evaluator import Limits
from onnxcp.measure.named_metric import metric_of
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.target import FLOAT32, TargetOptions
from onnxcp.plan import from_json
from onnxcp.runtime.cores import usable
from onnxcp.runtime.providers import GRAPH, Target

SAMPLES = ("data", "calibration", "train")  # keywords


def sources_of(given: Mapping[str, Any], staged: Staging, model: Path, *, seed: int = 0) -> Sources:
    """What to feed a model, from the keywords of a verb.

    Raises:
        DataError: samples in memory that do not fit the model.
        UsageError: samples that are none, or the same object for two purposes.
    """
    _refuse_same(given)
    specs = {
        name: staged.samples(given[name], name, model, given.get("samples"))
        for name in SAMPLES
        if given.get(name) is not None
    }
    options = grouped(DataOptions, {**given, **specs})
    return Sources(
        data=options.data,
        calibration=options.calibration,
        preprocess=options.preprocess,
        samples=options.samples,
        batch=options.batch,
        input_shapes=dict(map(parse_shape, options.input_shape)),
        seed=seed,
        train=options.train,
    )


def _refuse_same(given: Mapping[str, Any]) -> None:
    """Raises UsageError where samples that judge are those that calibrate or train."""
    data = given.get("data")
    for name in SAMPLES[1:]:
        if data is not None and given.get(name) is data:
            raise UsageError(
                f"<<{name}>>: is the object that <<data>> is, and its samples must not judge; "
                "give others, or leave it out"
            )


def limits_of(given: Mapping[str, Any]) -> Limits:
    """The budget, from the keywords of a verb. Raises UsageError as `Limits` does."""
    options = grouped(BudgetOptions, given)
    drop = None if options.max_drop is None else str(options.max_drop)
    return Limits(drop, options.max_error, metric_of(options.metric), options.output_name)


def target_of(options: TargetOptions) -> Target:
    """Where models run.

    Raises:
        UsageError: an unknown provider, an option that is no K=V, or a CUDA graph elsewhere.
    """
    pairs = [text.partition("=") for text in options.provider_option]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"<<provider_option={key + equals!r}>>: write it as KEY=VALUE")
    chosen = {key: value for key, _, value in pairs}
    if options.cuda_graph is not None:
        if options.provider != "cuda":
            raise UsageError(
                f"<<cuda_graph>>: provider {options.provider} has none; give <<provider=cuda>>"
            )
        chosen[GRAPH] = str(int(options.cuda_graph))
    return Target.named(options.provider, options.threads, chosen)


def precision_of(options: TargetOptions, plan: Path | None = None) -> str:
    """What is asked for; else what a plan was made for. Raises PlanError for no plan."""
    if options.precision is not None:
        return options.precision
    return FLOAT32 if plan is None else from_json(plan)[1].precision


def forms_of(form: str) -> tuple[str, ...]:
    """Those to try. Raises UsageError for an unknown one."""
    if form not in ("auto", *FORMS):
        raise UsageError(f"<<form={form}>>: unknown; choose auto, {', '.join(FORMS)}")
    return AUTO if form == "auto" else (form,)


def jobs_of(options: FitOptions) -> int:
    """Fits at once on this machine."""
    return options.jobs or usable().count
