"""One run of `finetune`: distill a rewritten model, and put the weights back into its graph.

Load both models → torch module with the outputs of ONNX Runtime → train → weights back → surgery
check → accuracy → benchmark → write. Nothing is written to the output path before the last step.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcp.artifacts.publishing import publish
from onnxcp.artifacts.reservation import Reads, model_files, reserve
from onnxcp.data.roles import Inputs, Sources, hold_out, prepare
from onnxcp.data.samples import Samples
from onnxcp.errors import TooBusy, UsageError
from onnxcp.graph import io, provenance
from onnxcp.graph.weights import with_weights
from onnxcp.measure.compare import time_models
from onnxcp.measure.evaluator import Limits, Referee, unjudged
from onnxcp.measure.judged_outputs import find
from onnxcp.measure.original_check import check_original, original_of
from onnxcp.measure.timing import Speedup, speedup
from onnxcp.options.run import RunOptions
from onnxcp.progress import Progress, silent
from onnxcp.results import AccuracyRecord, BaselineRecord
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import temporary
from onnxcp.storage.workdir import open_folder, own_files
from onnxcp.training.distill import (
    Distilled,
    distill,
    refuse_without_device,
    refuse_without_torch,
)
from onnxcp.verification.proof import prove_surgery

if TYPE_CHECKING:
    from onnxcp.training.recipe import Recipe

EVALUATION_STEP = 5  # without samples to train on, every fifth sample evaluates, the others train
MAX_SECONDS, MAX_TURNS = 10.0, 2000  # to time the models in turns


@dataclass(frozen=True, slots=True)
class FinetuneRequest:
    """The models, data and settings of a run.

    If `sources` name no samples to train on, most of their data train, and the rest evaluates.
    """

    reference: Path
    candidate: Path
    output: Path
    sources: Sources
    limits: Limits
    target: Target
    run: RunOptions = field(default_factory=RunOptions)
    also_read: tuple[Path | str | None, ...] = ()  # files that the options came from

    def reserve(self) -> None:
        """Check, before any work, that the run can write its outputs.

        Raises:
            OutputError: an output exists and must not be replaced, is an input of the run, is not
                a regular file, or cannot be written.
        """
        work = () if self.run.work_dir is None else own_files(self.run.work_dir)
        others = (self.sources.preprocess, self.limits.metric_name, *self.also_read, *work)
        samples = (*self.sources.data, *self.sources.train)
        outputs = [*model_files(self.output), *self.run.report]
        reads = Reads((self.reference, self.candidate), samples, others)
        reserve(outputs, reads, overwrite=self.run.overwrite)


@dataclass(frozen=True, slots=True)
class FinetuneMeasurements:
    """What was measured after training.

    `before` and `after` are the candidate's accuracy against the reference, before and after
    training. `surgery_l2` is the relative L2 error of the surgery check. The trained model's
    speed-up `over_candidate`, the model before training, should be 1.
    """

    before: AccuracyRecord
    after: AccuracyRecord
    surgery_l2: float | None
    over_reference: Speedup | None
    over_candidate: Speedup | None
    busy: str | None = None  # why no speed-up is known


@dataclass(frozen=True, slots=True, eq=False)
class Finetuned:
    """The result of a run."""

    request: FinetuneRequest
    distilled: Distilled
    measured: FinetuneMeasurements
    seconds: float
    baseline: BaselineRecord = field(default_factory=BaselineRecord)

    @property
    def ok(self) -> bool:
        """Whether the budget is met or none was given; only then is a model written."""
        after = self.measured.after
        return after.budget is None or after.drop <= after.budget


def finetune(
    request: FinetuneRequest,
    recipe: "Recipe",
    progress: Progress = silent,
    documents: Callable[[Finetuned], Mapping[Path, str]] | None = None,
) -> Finetuned:
    """Train a rewritten model, and write it if it meets the budget.

    The reports, whose texts `documents` makes, are written in any case: all of them or, after an
    error, nothing.

    Raises:
        MissingPackage: PyTorch is not installed.
        UsageError: the candidate was not made from the reference, or an option names nothing.
        OnnxcpError: the input, data or provider is unusable, PyTorch cannot compute an operator,
            or its outputs differ from ONNX Runtime's.
    """
    refuse_without_torch()
    refuse_without_device(recipe.device)
    request.reserve()
    begun = time.perf_counter()
    model, other = io.load(request.reference), io.load(request.candidate)
    _refuse_unrelated(model, other)
    inputs = _inputs(model, request)
    baseline = _baseline(model, request, inputs, progress)
    with contextlib.ExitStack() as stack:
        folder = request.run.work_dir
        if folder is not None:
            stack.enter_context(open_folder(folder, other.sha256, resume=request.run.resume))
        distilled = distill(
            model,
            other,
            inputs,
            recipe,
            folder=folder,
            resume=request.run.resume,
            progress=progress,
        )
        staging = stack.enter_context(temporary.folder(request.output.parent))
        staged = staging / request.output.name
        io.save(with_weights(other.proto, distilled.trained.weights), staged, other.external)
        proof = _measured(model, request, inputs, staged, progress)
        result = Finetuned(request, distilled, proof, time.perf_counter() - begun, baseline)
        texts = {} if documents is None else documents(result)
        models = [(staged, request.output)] if result.ok else []
        publish(texts, models, overwrite=request.run.overwrite)
    return result


def _baseline(
    model: io.Model, request: FinetuneRequest, inputs: Inputs, progress: Progress
) -> BaselineRecord:
    target = request.target.unhurried
    runner = open_runner(request.reference, target)
    original = original_of(model, runner, inputs, request.sources, target, request.limits)
    return check_original(original, accept=request.limits.accept_baseline, progress=progress)


def _refuse_unrelated(model: io.Model, other: io.Model) -> None:
    if model.sha256 not in provenance.read(other.proto).sources:
        raise UsageError(
            f"{other.path}: was not made from {model.path}; give the model that onnxcp optimize "
            "made from it"
        )


def _inputs(model: io.Model, request: FinetuneRequest) -> Inputs:
    """The sample sets of a run: evaluation, training and validation."""
    sources = request.sources
    if not sources.data:
        raise UsageError(
            "fine-tuning needs <<data>>: samples for evaluation, and without <<train>> also for "
            "training"
        )
    inputs = prepare(model.inputs, sources)
    if inputs.training is not None:
        return inputs
    evaluation, others = _whole(inputs).split(EVALUATION_STEP)
    training, validation = hold_out(others)
    return replace(
        inputs,
        samples=evaluation,
        search_samples=evaluation,
        training=training,
        validation=validation,
    )


def _whole(inputs: Inputs) -> Samples:
    """All samples of the data; those that `prepare` would calibrate with come last."""
    assert inputs.data is not None and inputs.roles is not None
    return inputs.data.at(
        list(dict.fromkeys((*inputs.roles.evaluation, *inputs.roles.calibration)))
    )


def _measured(
    model: io.Model, request: FinetuneRequest, inputs: Inputs, staged: Path, progress: Progress
) -> FinetuneMeasurements:
    """Surgery check, accuracy and speed of the trained model.

    Raises:
        SurgeryError: a chain does not compute the kernel that it stands for.
    """
    surgery = prove_surgery(
        model, staged, inputs, request.target, when="after training ", progress=progress
    )
    paths = (request.reference, request.candidate, staged)
    target = request.target.unhurried
    judged = replace(find(model, target, inputs.distinct_feeds), is_whole=request.limits.is_whole)
    runners = [judged.opened(path, target) for path in paths]
    referee = Referee(runners[0], inputs, request.limits, progress, judged)
    before, after = (referee.judge(runner) for runner in runners[1:])
    if not request.limits.is_given:
        before, after = unjudged(before), unjudged(after)
    progress("benchmark", 0, 1)
    given = (paths, inputs.timed_feeds, request.target)
    try:
        original, before_training, trained = time_models(
            *given, turns=MAX_TURNS, warmup=5, seconds=MAX_SECONDS
        )
    except TooBusy as error:
        return FinetuneMeasurements(before, after, surgery.relative_l2, None, None, error.text)
    return FinetuneMeasurements(
        before,
        after,
        surgery.relative_l2,
        speedup(original, trained),
        speedup(before_training, trained),
    )
