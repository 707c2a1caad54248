"""`onnxcp.inspect`: every layer of a model, and whether a chain could replace it."""

from dataclasses import dataclass
from typing import Any, Unpack

from onnxcp.api.keywords import grouped, single, verb
from onnxcp.api.models import ModelLike
from onnxcp.api.settings import data_of, fits_of
from onnxcp.api.shown import Shown
from onnxcp.api.staging import staging
from onnxcp.api.types import Inspect
from onnxcp.data.roles import Sources
from onnxcp.errors import as_keywords
from onnxcp.fitting import rank_curves
from onnxcp.fitting.rank_curves import RankCurve
from onnxcp.forms import named
from onnxcp.graph.layers import Layer
from onnxcp.latency.listing import ELIGIBLE, Listing, survey_layers
from onnxcp.options.plan import PlanOptions
from onnxcp.options.target import TargetOptions
from onnxcp.progress import Progress, silent
from onnxcp.report import Page
from onnxcp.report.inspect import as_text, curves_as_text, curves_page, page
from onnxcp.runtime.cores import usable
from onnxcp.runtime.providers import Target


@dataclass(frozen=True, slots=True)
class InspectResult(Shown, Listing):
    """The layers of a model as `rows`, with multiply-adds of one sample; `curves` hold error and
    sensitivity against rank where they were asked for."""

    curves: tuple[RankCurve, ...] = ()

    @property
    def eligible(self) -> tuple[Layer, ...]:
        """The layers that a chain could replace."""
        return tuple(row.layer for row in self.rows if row.status == ELIGIBLE)

    def to_text(self, width: int = 120) -> str:
        """What the command prints."""
        return as_keywords(curves_as_text(self.curves) if self.curves else as_text(self, width))

    def _page(self) -> Page:
        return curves_page(self.model, self.curves) if self.curves else page(self)


@verb()
def inspect(
    model: ModelLike, *, progress: Progress = silent, **options: Unpack[Inspect]
) -> InspectResult:
    """List every Conv and matrix product: shape, cost, and whether a chain can replace it.

    Args:
        model: a path, an onnx.ModelProto or an onnx_graphsurgeon.Graph.
        profile: whether to measure the time of every layer that can be replaced.
        ranks: whether to fit, and give error and sensitivity against rank, too.
        form: of `ranks`: auto, or one form.
        calibration: samples that `ranks` weighs errors by, as `onnxcp.optimize` takes them.
        cache: a folder for fits that outlive the call; without it none are kept, but with
            `no_cache=False`, which keeps them where the command does.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        TooBusy: other work on the machine left nothing to be told of times.
        OnnxcpError: an unusable model, samples or keyword, which the message names.
    """
    with staging() as staged:
        given: dict[str, Any] = {**options}
        target = Target.of(grouped(TargetOptions, given))
        path = staged.model(model)
        sources = Sources.of(data_of(given, staged, path))
        listing = survey_layers(
            path, sources, target, profile=bool(single("profile", bool, given.get("profile")))
        )
        curves = list[RankCurve]()
        if single("ranks", bool, given.get("ranks")):
            fits = fits_of(given)
            forms = named(grouped(PlanOptions, given).form)
            curves = rank_curves.rank_curves(
                path,
                sources,
                target,
                forms,
                jobs=fits.jobs or usable().count,
                cache=fits.cache_folder,
                progress=progress,
            )
        found = InspectResult(
            listing.model, listing.rows, listing.unknown, listing.notes, tuple(curves)
        )
        return staged.as_given(found)
