"""One kernel as a chain of cheaper convolutions, without a model around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from onnxcp.api.keywords import single, verb
from onnxcp.api.samples import as_array
from onnxcp.chain import Chain, Geometry, Kernel
from onnxcp.errors import DataError, UsageError
from onnxcp.fitting.fits import FULL
from onnxcp.fitting.task import Aim, Fitted, Task, fit
from onnxcp.forms import DRAFT, FORMS, Outcome, grouped
from onnxcp.forms.fit import Factors
from onnxcp.graph.sites import Site
from onnxcp.plan import Choice, round_up


class Sliding(TypedDict, total=False):
    """How a kernel slides, and over how many groups of channels."""

    stride: int | Sequence[int]
    pads: int | Sequence[int]
    dilation: int | Sequence[int]
    group: int


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """A kernel in one form at one rank.

    `factors` are those of the form, for a kernel in groups with an axis of the groups before
    their own. `stages` are the convolutions in order that compute with them: plain data, as
    `onnxcp.replace` puts them into a model. `error` is ‖K − K̂‖ / ‖K‖ in the norm of the fit;
    `sensitivity` the expected squared change of the kernel per unit variance of noise on the
    factors, and `sensitivity_before` what it was of the least-squares factors. `outcome` says how
    the fit ended: see `is_usable`.
    """

    form: str
    rank: int
    factors: Factors
    stages: Chain
    error: float
    sensitivity: float
    sensitivity_before: float
    outcome: Outcome
    group: int = 1
    shape: tuple[int, ...] = ()  # of the kernel: T, S / group, then the window

    @property
    def is_usable(self) -> bool:
        """Whether a model may be made of it: false for factors that are not finite, or hold terms
        so large that they cancel each other in single precision; `outcome.value` says so."""
        return self.outcome.is_usable

    @property
    def kernel(self) -> Kernel:
        """The dense kernel [T, S / group, *window] that the stages stand for, in float64."""
        return grouped.reconstructed(FORMS[self.form], self._groups, self._part)

    def stages_at(self, site: Site) -> Chain:
        """The chain for a node of a model, which slides as that node does.

        Raises:
            UsageError: the node's kernel has another shape.
        """
        if (site.shape, site.group) != (self.shape, self.group):
            raise UsageError(
                f"{site.name}: its kernel is {_sizes(site.shape)} in {site.group} groups, the "
                f"decomposed one {_sizes(self.shape)} in {self.group}; decompose its own kernel"
            )
        return grouped.chain(FORMS[self.form], self._groups, self._part, site.geometry)

    @property
    def _groups(self) -> list[Factors]:
        """The factors of every group."""
        if self.group == 1:
            return [self.factors]
        return [tuple(factor[number] for factor in self.factors) for number in range(self.group)]

    @property
    def _part(self) -> tuple[int, ...]:
        return grouped.part_of(self.shape, self.group)


@verb()
def decompose(
    weight: Any,
    form: str = "cp3",
    rank: int = 0,
    *,
    covariance: Any = None,
    seed: int = 0,
    draft: bool = False,
    **options: Unpack[Sliding],
) -> Decomposition:
    """Write a kernel as a chain of cheaper convolutions: the fit that `onnxcp.optimize` makes of
    every layer that it replaces.

    Args:
        weight: [T, S / group, *window], as a Conv stores it, or a matrix [T, S]; an array or a
            tensor. T are the output channels, S the input channels.
        form: cp3, cp4, tkd, tucker2 or svd.
        rank: of the whole kernel, so a multiple of `group`.
        covariance: of the inputs, which the error is weighed by: [K·S, K·S] of whole patches,
            position-major (column k·S + s for position k of the window), or [S, S] of the
            channels alone; with groups one for each, along a first axis. None weighs all alike.
        seed: of the random factors that the fit starts from.
        draft: fit quickly, mostly to within a tenth of the converged error, to compare ranks.
        stride, dilation: of the kernel, one number or one for each dimension of the window: 1.
        pads: zeros around the image, one number, or as ONNX has them: before each dimension,
            then after each: 0.
        group: how many groups the channels fall into: 1.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        DataError: weight or covariance hold no finite numbers.
        UsageError: an unknown form, one that does not take the kernel, a rank beyond the largest
            that has a use, or shapes that do not fit each other.
    """
    kernel = _finite(weight, "weight")
    rank, group = (
        single(name, int, value) or 0
        for name, value in (("rank", rank), ("group", options.get("group", 1)))
    )
    _refuse_unfit(kernel, form, rank, group)
    geometry, part = _geometry(kernel, options), grouped.part_of(kernel.shape, group)
    covariances = _covariances(covariance, kernel, group)
    task = Task(Choice(form, rank), (seed,), DRAFT if draft else FULL)
    fitted = fit(task, Aim(kernel, group, covariances, ""))
    return Decomposition(
        form=form,
        rank=rank,
        factors=_factors(fitted),
        stages=grouped.chain(FORMS[form], fitted.factors, part, geometry),
        error=fitted.error,
        sensitivity=fitted.sensitivity_after,
        sensitivity_before=fitted.sensitivity_before,
        outcome=fitted.outcome,
        group=group,
        shape=kernel.shape,
    )


def _factors(fitted: Fitted) -> Factors:
    if len(fitted.factors) == 1:
        return fitted.factors[0]
    return tuple(np.stack(parts) for parts in zip(*fitted.factors, strict=True))


def _finite(values: Any, keyword: str) -> np.ndarray:
    array = as_array(values, keyword)
    if array.dtype.kind != "f":
        raise DataError(f"{keyword}: of {array.dtype}; give floating-point numbers")
    if not np.isfinite(array).all():
        raise DataError(f"{keyword}: holds NaN or infinity")
    return array


def _refuse_unfit(kernel: np.ndarray, form: str, rank: int, group: int) -> None:
    """Raises UsageError for a form or a rank that a kernel cannot be written in."""
    if form not in FORMS:
        raise UsageError(f"form={form!r}: unknown; choose one of {', '.join(FORMS)}")
    if kernel.ndim < 2 or not kernel.size:
        raise UsageError(f"weight: of shape {kernel.shape}; give [T, S, *window], or a matrix")
    if group < 1 or len(kernel) % group:
        raise UsageError(f"group={group}: does not divide the {len(kernel)} output channels")
    reason = FORMS[form].refuses(grouped.part_of(kernel.shape, group))
    if reason is not None:
        raise UsageError(f"form={form!r}: {reason}")
    largest = grouped.largest_rank(FORMS[form], kernel.shape, group)
    if not 1 <= rank <= largest:
        raise UsageError(
            f"rank={rank}: must be 1 to {largest}, the largest of use for {_sizes(kernel.shape)}"
        )
    if rank % group:
        raise UsageError(
            f"rank={rank}: must be a multiple of the {group} groups, as {round_up(rank, group)}"
        )


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _geometry(kernel: np.ndarray, given: Sliding) -> Geometry:
    count = max(kernel.ndim - 2, 0)
    return Geometry(
        _each("stride", given.get("stride", 1), count=count, least=1),
        _each("dilation", given.get("dilation", 1), count=count, least=1),
        _each("pads", given.get("pads", 0), count=2 * count, least=0),
        dimensions=count,
    )


def _each(keyword: str, given: int | Sequence[int], *, count: int, least: int) -> tuple[int, ...]:
    """A number for each dimension; that of all of them where one is given."""
    numbers = [given] * count if isinstance(given, int | np.integer) else list(given)
    is_whole = all(isinstance(n, int | np.integer) and n >= least for n in numbers)
    if len(numbers) != count or not is_whole:
        raise UsageError(
            f"{keyword}={given!r}: give {count or 'no'} whole numbers from {least} for this kernel"
        )
    return tuple(int(n) for n in numbers)


def _covariances(covariance: Any, kernel: np.ndarray, group: int) -> tuple[np.ndarray | None, ...]:
    """The covariance of every group's inputs; None where none is given."""
    if covariance is None:
        return (None,) * group
    array = _finite(covariance, "covariance")
    stacked = array[None] if array.ndim == 2 else array
    inputs, patch = kernel.shape[1], int(np.prod(kernel.shape[1:]))
    if stacked.shape not in [(group, size, size) for size in (inputs, patch)]:
        raise UsageError(
            f"covariance: of shape {array.shape}; give [{patch}, {patch}] of whole patches or "
            f"[{inputs}, {inputs}] of channels{f', for each of {group} groups' * (group > 1)}"
        )
    return tuple(stacked)
