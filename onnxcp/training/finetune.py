"""One run of `finetune`: train a rewritten model to give what the original gives, and put the
weights back by name into the same graph.

load both → torch module, equal to the runtime's outputs → train → weights back → surgery check
→ accuracy → benchmark → write. Nothing reaches the output path before the last step.
"""

import contextlib
import time
from collections.abc import Callable
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
from onnxcp.measure.evaluator import Limits, Referee, unjudged
from onnxcp.measure.judged_outputs import find
from onnxcp.measure.original_check import check_original, original_of
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import Speedup, speedup, take_turns
from onnxcp.options.run import RunOptions
from onnxcp.progress import Progress, silent
from onnxcp.results import AccuracyRecord, BaselineRecord
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import temporary
from onnxcp.storage.workdir import open_folder, own_files
from onnxcp.training.distill import (
    Taught,
    checked_surgery,
    refuse_without_device,
    refuse_without_torch,
    teach,
)

if TYPE_CHECKING:
    from onnxcp.training.recipe import Recipe

JUDGED_STEP = (
    5  # where no samples to train on are named every fifth of the data judges, and the others train
)
SECONDS, TURNS = 10.0, 2000  # of the models in turns, at most


@dataclass(frozen=True, slots=True)
class Round:
    """What is asked for. Where `sources` name no samples to train on most of their data train,
    and the rest judges."""

    reference: Path
    candidate: Path
    output: Path
    sources: Sources
    limits: Limits
    target: Target
    run: RunOptions = field(default_factory=RunOptions)
    also_read: tuple[Path | str | None, ...] = ()  # files that the options came from

    def reserve(self) -> None:
        """Make sure, before any work, that the run can write what it may write.

        Raises:
            OutputError: something exists and may not be replaced, is read by the run, is no
                plain file, or cannot be written.
        """
        kept = () if self.run.work_dir is None else own_files(self.run.work_dir)
        others = (self.sources.preprocess, self.limits.metric_name, *self.also_read, *kept)
        samples = (*self.sources.data, *self.sources.train)
        outputs = [*model_files(self.output), *self.run.report]
        reads = Reads((self.reference, self.candidate), samples, others)
        reserve(outputs, reads, overwrite=self.run.overwrite)


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured in the end: accuracy against the reference of the candidate as it came
    and as it is now, and how much faster it is now than the reference, and than it was, from
    which it must not differ."""

    before: AccuracyRecord
    after: AccuracyRecord
    surgery_l2: float | None
    over_reference: Speedup | None
    over_candidate: Speedup | None
    busy: str | None = None  # why no speed-up is known


@dataclass(frozen=True, slots=True, eq=False)
class Finetuned:
    """One run."""

    asked: Round
    taught: Taught
    proof: Proof
    seconds: float
    baseline: BaselineRecord = field(default_factory=BaselineRecord)

    @property
    def ok(self) -> bool:
        """Whether the budget is met, if one was given; only then a model is written."""
        after = self.proof.after
        return after.budget is None or after.drop <= after.budget


def finetune(
    asked: Round,
    recipe: "Recipe",
    progress: Progress = silent,
    document: Callable[[Finetuned], str] = repr,
) -> Finetuned:
    """Train a rewritten model, and write it if it meets the budget; the report, whose text is
    what `document` makes, in any case: both or, after an error, nothing.

    Raises:
        MissingPackage: PyTorch is not installed.
        UsageError: the candidate is no rewrite of the reference, or options name nothing.
        OnnxcpError: unusable input, data or provider; an operator that torch can not compute
            here; outputs that differ from the runtime's.
    """
    refuse_without_torch()
    refuse_without_device(recipe.device)
    asked.reserve()
    begun = time.perf_counter()
    model, other = io.load(asked.reference), io.load(asked.candidate)
    _refuse_strangers(model, other)
    inputs = _inputs(model, asked)
    baseline = _baseline(model, asked, inputs, progress)
    with contextlib.ExitStack() as held:
        folder = asked.run.work_dir
        if folder is not None:
            held.enter_context(open_folder(folder, other.sha256, resume=asked.run.resume))
        taught = teach(
            model,
            other,
            inputs,
            recipe,
            folder=folder,
            resume=asked.run.resume,
            progress=progress,
        )
        staging = held.enter_context(temporary.folder(asked.output.parent))
        staged = staging / asked.output.name
        io.save(with_weights(other.proto, taught.trained.weights), staged, other.external)
        proof = _proof(model, asked, inputs, staged, progress)
        made = Finetuned(asked, taught, proof, time.perf_counter() - begun, baseline)
        texts = {path: document(made) for path in asked.run.report}
        models = [(staged, asked.output)] if made.ok else []
        publish(texts, models, overwrite=asked.run.overwrite)
    return made


def _baseline(model: io.Model, asked: Round, inputs: Inputs, progress: Progress) -> BaselineRecord:
    target = asked.target.unhurried
    runner = open_runner(asked.reference, target)
    known = original_of(model, runner, inputs, asked.sources, target, asked.limits)
    return check_original(known, accept=asked.limits.accept_baseline, progress=progress)


def _refuse_strangers(model: io.Model, other: io.Model) -> None:
    made = provenance.read(other.proto)
    if model.sha256 not in made.sources:
        raise UsageError(
            f"{other.path}: is no rewrite of {model.path}; give the model that onnxcp optimize "
            "made of it"
        )


def _inputs(model: io.Model, asked: Round) -> Inputs:
    """Samples that judge, and others to train on."""
    sources = asked.sources
    if not sources.data:
        raise UsageError(
            "fine-tuning needs <<data>>: samples to judge by, and without <<train>> also to train "
            "on"
        )
    inputs = prepare(model.inputs, sources)
    if inputs.training is not None:
        return inputs
    judged, others = _whole(inputs).split(JUDGED_STEP)
    training, held = hold_out(others)
    return replace(
        inputs, samples=judged, search_samples=judged, training=training, validation=held
    )


def _whole(inputs: Inputs) -> Samples:
    """All samples of the data, those that `prepare` would calibrate with at the end."""
    assert inputs.data is not None and inputs.roles is not None
    return inputs.data.at(
        list(dict.fromkeys((*inputs.roles.evaluation, *inputs.roles.calibration)))
    )


def _proof(
    model: io.Model, asked: Round, inputs: Inputs, staged: Path, progress: Progress
) -> Proof:
    """Surgery, accuracy and speed of the trained model.

    Raises:
        SurgeryError: its chains do not compute what they stand for.
    """
    found = checked_surgery(model, staged, inputs, asked.target, progress)
    paths = (asked.reference, asked.candidate, staged)
    target = asked.target.unhurried
    judged = replace(find(model, target, inputs.distinct_feeds), is_whole=asked.limits.is_whole)
    runners = [judged.opened(path, target) for path in paths]
    referee = Referee(runners[0], inputs, asked.limits, progress, judged)
    before, after = (referee.judge(runner) for runner in runners[1:])
    if not asked.limits.is_given:
        before, after = unjudged(before), unjudged(after)
    progress("benchmark", 0, 1)
    runs = [open_runner(path, asked.target).bound(inputs.timed_feeds) for path in paths]
    try:
        watch = stopwatch(asked.target)
        old, chained, new = take_turns(runs, watch, turns=TURNS, warmup=5, seconds=SECONDS)
    except TooBusy as error:
        return Proof(before, after, found.relative_l2, None, None, error.text)
    return Proof(before, after, found.relative_l2, speedup(old, new), speedup(chained, new))
