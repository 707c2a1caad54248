"""What two models must share to be compared, and what to feed both."""

from collections.abc import Sequence
from dataclasses import replace

from onnxcp.data.recorded_roles import roles_of
from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.data.samples import Samples
from onnxcp.errors import DataError, UsageError
from onnxcp.graph.input_specs import Dim, TensorSpec
from onnxcp.graph.io import Model
from onnxcp.graph.provenance import read

ALIKE = "compare models of the same interface"


def inputs_of_both(reference: Model, candidate: Model, sources: Sources) -> Inputs:
    """Feeds that both models take; samples have the roles that they had when the candidate was
    made of the reference.

    Raises:
        UsageError: inputs of other names, dtypes or fixed sizes; or other names of outputs.
        OnnxcpError: feeds that do not fit, with the model that refuses them if one does not.
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
            raise type(error)(f"{refusing[0].path}, of the two models alone: {error}") from error
        raise


def outputs(model: Model) -> list[str]:
    """Names of a model's outputs."""
    return [output.name for output in model.proto.graph.output]


def every_sample(inputs: Inputs) -> Samples | None:
    """All samples of the data, those kept to calibrate included; None without data."""
    return inputs.data


def _refuse_other_names(what: str, old: Sequence[str], new: Sequence[str]) -> None:
    if sorted(old) != sorted(new):
        names = f"{', '.join(sorted(old))} and {', '.join(sorted(new))}"
        raise UsageError(f"the models {what}, {names}; {ALIKE}")


def _both(reference: Model, candidate: Model, one: TensorSpec, two: TensorSpec) -> TensorSpec:
    """An input with every size that either model fixes."""
    apart = (
        f"input {one.name!r}: {reference.path} takes {one.dtype} {one.text()}, "
        f"{candidate.path} {two.dtype} {two.text()}; {ALIKE}"
    )
    if one.dtype != two.dtype:
        raise UsageError(apart)
    if one.dims is None or two.dims is None:
        return one if two.dims is None else two
    if len(one.dims) != len(two.dims):
        raise UsageError(apart)
    pairs = list(zip(one.dims, two.dims, strict=True))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        raise UsageError(apart)
    return replace(one, dims=tuple(_fixed(a, b) for a, b in pairs))


def _fixed(one: Dim, two: Dim) -> Dim:
    return two if isinstance(two, int) else one


def _refuses(model: Model, sources: Sources) -> bool:
    try:
        prepare(model.inputs, sources)
    except (DataError, UsageError):
        return True
    return False
