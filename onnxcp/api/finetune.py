"""`onnxcp.finetune`: train a rewritten model's weights to give what the original gives."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Unpack

import onnx

from onnxcp.api.keywords import grouped, single, verb
from onnxcp.api.models import ModelLike
from onnxcp.api.saving import Saved, read_back
from onnxcp.api.settings import data_of
from onnxcp.api.shown import Shown
from onnxcp.api.staging import Staging, staging
from onnxcp.api.types import Finetune, PathLike
from onnxcp.data.roles import Sources
from onnxcp.errors import UsageError, as_keywords
from onnxcp.measure.evaluator import Limits
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.training import TrainingOptions
from onnxcp.progress import Progress, silent
from onnxcp.report import Page
from onnxcp.report.finetune import page, to_text
from onnxcp.results import AccuracyRecord
from onnxcp.runtime.providers import Target
from onnxcp.training import finetune as training
from onnxcp.training.distill import refuse_without_torch
from onnxcp.training.finetune import Finetuned


@dataclass(frozen=True, slots=True, eq=False)
class FinetuneResult(Shown, Finetuned):
    """What training was worth: `ok` says whether the budget is met, if one was given."""

    saved: Saved | None = field(default=None, repr=False)

    @property
    def model(self) -> onnx.ModelProto | None:
        """The trained model; None where it is over the budget."""
        return None if self.saved is None else self.saved.model

    @property
    def accuracy_before(self) -> AccuracyRecord:
        """What the candidate lost against the reference, as it came."""
        return self.measured.before

    @property
    def accuracy(self) -> AccuracyRecord:
        """What it loses now."""
        return self.measured.after

    @property
    def speedup(self) -> float | None:
        """How many times faster it is than the reference; None where the machine was too busy."""
        found = self.measured.over_reference
        return None if found is None else found.ratio

    @property
    def speedup_ci(self) -> tuple[float, float] | None:
        """Its 95 % interval."""
        found = self.measured.over_reference
        return None if found is None else (found.low, found.high)

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the model.

        Raises:
            OutputError: a file is there and `overwrite` is off, or cannot be written.
            UsageError: the model is over the budget, so there is none.
        """
        if self.saved is None:
            raise UsageError("there is no model to save: it is over the budget")
        return self.saved.write(Path(path), overwrite=overwrite)

    def to_text(self) -> str:
        """What the command prints."""
        return as_keywords(to_text(self))

    def _page(self) -> Page:
        return page(self)


@verb()
def finetune(
    reference: ModelLike,
    candidate: ModelLike,
    *,
    progress: Progress = silent,
    **options: Unpack[Finetune],
) -> FinetuneResult:
    """Train a rewritten model to give what the original gives; labels are not needed.

    Needs PyTorch. Only weights change: the graph, its names and its speed stay.

    Args:
        reference: the original, as it was given to `onnxcp.optimize`.
        candidate: what `optimize` made of it.
        data, train: samples that judge, and others that train, as `onnxcp.optimize` takes them.
        output: where to write the model; by default nothing is written, and `result.save` does.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        MissingPackage: PyTorch is not installed.
        OnnxcpError: unusable models, samples or keywords, which the message names.
    """
    refuse_without_torch()
    from onnxcp.training.recipe import recipe_of

    with staging() as staged:
        given: dict[str, Any] = {**options}
        old, new = staged.model(reference, "reference"), staged.model(candidate, "candidate")
        run, how = grouped(RunOptions, given), grouped(TrainingOptions, given)
        recipe = recipe_of(how, run)
        request = training.FinetuneRequest(
            old,
            new,
            staged.output(single("output", Path, given.get("output")), "finetuned.onnx"),
            Sources.of(data_of(given, staged, old), run.seed),
            Limits.of(grouped(BudgetOptions, given)),
            Target.of(grouped(TargetOptions, given)),
            run,
            also_read=(how.recipe, how.loss),
        )
        found = training.finetune(request, recipe, progress)
        saved = read_back(request.output) if found.ok else None
        values = {f.name: getattr(found, f.name) for f in fields(found)}
        values["request"] = _as_given(request, staged)
        return staged.as_given(FinetuneResult(**values, saved=saved))


def _as_given(request: training.FinetuneRequest, staged: Staging) -> training.FinetuneRequest:
    """A run with its files as its caller names them."""
    paths = (request.reference, request.candidate, request.output)
    old, new, output = (Path(staged.words(str(path))) for path in paths)
    return replace(request, reference=old, candidate=new, output=output)
