"""The inputs of two models that are compared, and the feeds that both take."""

from collections.abc import Sequence
from dataclasses import replace

from onnxcp.data.recorded_roles import roles_of
from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.data.samples import Samples
from onnxcp.errors import DataError, UsageError
from onnxcp.graph.input_specs import Dim, TensorSpec
from onnxcp.graph.io import Model
from onnxcp.graph.provenance import read

ADVICE = "compare models with the same inputs and outputs"


def inputs_of_both(reference: Model, candidate: Model, sources: Sources) -> Inputs:
    """Feeds that both models take.

    Samples keep the roles that they had when the candidate was made from the reference.

    Raises:
        UsageError: the models differ in names, dtypes or fixed sizes of inputs, or in the names
            of outputs.
        OnnxcpError: the samples do not fit; names the model if they fit the other one.
    """
    old, new = ({s.name: s for s in model.inputs} for model in (reference, candidate))
    _refuse_other_names("take different inputs", list(old), list(new))
    _refuse_other_names("give different outputs", outputs(reference), outputs(candidate))
    roles, is_ours = roles_of(candidate, reference.sha256), read(candidate.proto).is_ours
    sources = replace(sources, roles=roles, hold_out=roles is None and is_ours)
    try:
        both = [_both(reference, candidate, spec, new[name]) for name, spec in old.items()]
        return prepare(both, sources)
    except (DataError, UsageError) as error:
        refusing = [m for m in (reference, candidate) if _refuses(m, sources)]
        if len(refusing) == 1:
            where = f"{refusing[0].path}, only this of the two"
            raise type(error)(f"{where}: {error.text}") from error
        raise


def outputs(model: Model) -> list[str]:
    """Names of a model's outputs, in the order of the graph."""
    return [output.name for output in model.proto.graph.output]


def every_sample(inputs: Inputs) -> Samples | None:
    """All samples of `data`, calibration samples included; None without data."""
    return inputs.data


def _refuse_other_names(what: str, old: Sequence[str], new: Sequence[str]) -> None:
    if sorted(old) != sorted(new):
        names = f"{', '.join(sorted(old))} and {', '.join(sorted(new))}"
        raise UsageError(f"the models {what}, {names}; {ADVICE}")


def _both(reference: Model, candidate: Model, one: TensorSpec, two: TensorSpec) -> TensorSpec:
    """The input with every size that either model fixes."""
    difference = (
        f"input {one.name!r}: {reference.path} takes {one.dtype} {one.text()}, "
        f"{candidate.path} {two.dtype} {two.text()}; {ADVICE}"
    )
    if one.dtype != two.dtype:
        raise UsageError(difference)
    if one.dims is None or two.dims is None:
        return one if two.dims is None else two
    if len(one.dims) != len(two.dims):
        raise UsageError(difference)
    pairs = list(zip(one.dims, two.dims, strict=True))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        raise UsageError(difference)
    return replace(one, dims=tuple(_fixed(a, b) for a, b in pairs))


def _fixed(one: Dim, two: Dim) -> Dim:
    return two if isinstance(two, int) else one


def _refuses(model: Model, sources: Sources) -> bool:
    try:
        prepare(model.inputs, sources)
    except (DataError, UsageError):
        return True
    return False
