"""`onnxcp.verify`: are two models' outputs equal, and if not where and by how much."""

from dataclasses import dataclass, fields, replace
from typing import Any, Unpack

from onnxcp.api.keywords import grouped, single, verb
from onnxcp.api.models import ModelLike
from onnxcp.api.settings import data_of
from onnxcp.api.shown import Shown
from onnxcp.api.staging import staging
from onnxcp.api.types import Verify
from onnxcp.data.roles import Sources
from onnxcp.errors import as_keywords
from onnxcp.measure.evaluator import Limits
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.tolerance import ToleranceOptions
from onnxcp.progress import Progress, silent
from onnxcp.report import Page
from onnxcp.report.verify import as_text, page
from onnxcp.runtime.providers import Target
from onnxcp.verification.comparison import Comparison, run
from onnxcp.verification.difference import Difference


@dataclass(frozen=True, slots=True)
class VerifyResult(Shown, Comparison):
    """Both questions answered: `surgery`, is the candidate the original but for its chains; and
    `verdict` and `accuracy`, how far apart are their outputs. `ok` says whether it passes,
    `failures` why not."""

    @property
    def outputs(self) -> tuple[Difference, ...]:
        """How far apart every output is; none where the candidate does not run."""
        return () if self.verdict is None else tuple(self.verdict.outputs)

    def to_text(self, width: int = 80) -> str:
        """What the command prints."""
        return as_keywords(as_text(self, width))

    def _page(self) -> Page:
        return page(self)


@verb()
def verify(
    reference: ModelLike,
    candidate: ModelLike,
    *,
    progress: Progress = silent,
    **options: Unpack[Verify],
) -> VerifyResult:
    """Check the surgery, and compare outputs on data, or on synthetic inputs without.

    Args:
        reference: the original: a path, an onnx.ModelProto or an onnx_graphsurgeon.Graph.
        candidate: what to check.
        data: samples, as `onnxcp.optimize` takes them.
        rtol, atol: a tolerance for all outputs, or {output: tolerance}.
        check_error_stat: what they bound: elemwise, max, mean or median, for all or by output.
        reference_provider: where the reference runs; by default on `provider`, too.
        precision: what the candidate has to be: float32, float16 or int8.

    Returns:
        The comparison; one that fails is a value, too: see `ok`.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        OnnxcpError: unusable models, samples or keywords, which the message names.
    """
    with staging() as staged:
        given: dict[str, Any] = {**options}
        where = grouped(TargetOptions, given)
        other = None
        elsewhere = single("reference_provider", str, given.get("reference_provider"))
        if elsewhere not in (None, where.provider):
            other = Target.of(replace(where, provider=elsewhere, provider_option=())).exact
        old, new = staged.model(reference, "reference"), staged.model(candidate, "candidate")
        found = run(
            old,
            new,
            Sources.of(data_of(given, staged, old), grouped(RunOptions, given).seed),
            Target.of(where).exact,
            other,
            limits=Limits.of(grouped(BudgetOptions, given)),
            bounds=grouped(ToleranceOptions, given),
            precision=where.precision,
            progress=progress,
        )
        made = VerifyResult(**{f.name: getattr(found, f.name) for f in fields(found)})
        return staged.as_given(made)
