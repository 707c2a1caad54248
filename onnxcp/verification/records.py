"""The check that the chains of a model are those that its metadata describe.

Each field of a record is compared with the model itself: form and rank with the shapes of stages,
hashes with weights, and the fitted kernel with the one in the original.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from onnxcp.chain import Chain
from onnxcp.forms import FORMS, grouped
from onnxcp.graph import float_parts, provenance, shortcuts
from onnxcp.graph.provenance import Provenance, Record
from onnxcp.graph.sites import Site, shortcuts_before


def faults(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    made: Provenance,
    chains: Mapping[str, Chain],
    sites: Mapping[str, Site],
) -> Iterable[str]:
    """Statements of a candidate's metadata that are wrong.

    `chains` are those read from the candidate, by the site of the reference that they replace.
    """
    yield from broken_seal(made)
    yield from _strange_shortcuts(reference, candidate)
    yield from _strange_tensors(reference, made)
    for name in made.chains or {}:
        if name not in made.sites:
            yield f"{name}: the metadata describe a chain of it that they do not list"
    for name, chain in chains.items():
        written = (made.chains or {}).get(name)
        if written is None:
            yield f"{name}: the metadata know nothing of its chain"
            continue
        yield from _weights(name, chain, sites[name], written)
        yield from _kind(name, chain, sites[name], written)
        yield from _kernel(name, sites[name], written, made)


def broken_seal(made: Provenance) -> Iterable[str]:
    """Whether the entries were changed after they were written.

    Models of older versions have no seal, and no records of kernels.
    """
    is_old = not any(record.kernel for record in (made.chains or {}).values())
    if made.is_sealed is False or (made.is_sealed is None and not is_old):
        yield "onnxcp's metadata are not those that it wrote: they were changed afterwards"


def _strange_shortcuts(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> Iterable[str]:
    known = {s.name for s in shortcuts.find(reference)} | {*shortcuts_before(reference)}
    for name in shortcuts_before(candidate):
        if name not in known:
            yield f"{name}: by the metadata a shortcut became a convolution, but there was none"


def _strange_tensors(reference: onnx.ModelProto, made: Provenance) -> Iterable[str]:
    known = {t.name for t in reference.graph.initializer}
    for name in made.trained:
        if name not in known:
            yield f"{name}: by the metadata it was trained, but the original has no such tensor"


def _weights(name: str, chain: Chain, site: Site, written: Record) -> Iterable[str]:
    roles, wanted = [stage.role for stage in chain], [role for role, _ in written.stages]
    if roles != wanted:
        yield f"{name}: its stages are {', '.join(roles)}; written were {', '.join(wanted)}"
        return
    for stage, (role, sha256) in zip(chain, written.stages, strict=True):
        if provenance.digest(stage, site.kernel.dtype) != sha256:
            yield f"{name}: the weights of stage {role!r} are not those that were written"


def _kind(name: str, chain: Chain, site: Site, written: Record) -> Iterable[str]:
    """Faults of form and rank, by the shapes that such a chain has."""
    if written.floats and written.floats not in float_parts.possible([s.role for s in chain]):
        yield f"{name}: the metadata leave {written.floats!r} of its chain in float"
    wanted = _shapes_of(site, written)
    if wanted is None or wanted != [(s.role, s.weight.shape, s.group) for s in chain]:
        yield f"{name}: its chain is none of form {written.form} at rank {written.rank}"


def _shapes_of(site: Site, written: Record) -> list[tuple[str, tuple[int, ...], int]] | None:
    """Roles, shapes and groups of the stages of this form and rank; None if it is impossible."""
    form, rank = FORMS.get(written.form), written.rank
    if form is None or form.refuses(site.part) is not None:
        return None
    if not 0 < rank <= grouped.largest_rank(form, site.shape, site.group) or rank % site.group:
        return None
    rng = np.random.default_rng(0)
    drawn = grouped.drawn(form, site.shape, site.group, rank, site.geometry, rng)
    return [(stage.role, stage.weight.shape, stage.group) for stage in drawn]


def _kernel(name: str, site: Site, written: Record, made: Provenance) -> Iterable[str]:
    """Faults of the fitted kernel: a chain swapped with another has another one.

    Not checked for kernels that training changed before the chain was made.
    """
    if (
        written.kernel
        and not made.trained
        and written.kernel != provenance.kernel_digest(site.kernel)
    ):
        yield f"{name}: its chain was fitted to another kernel than the original's"


def trained(
    reference: onnx.ModelProto, candidate: onnx.ModelProto, made: Provenance
) -> dict[str, onnx.TensorProto]:
    """The tensors that training changed according to the metadata, if their hashes agree."""
    old = {t.name: t for t in reference.graph.initializer}
    new = {t.name: t for t in candidate.graph.initializer if t.name in made.trained}
    return {
        name: t
        for name, t in new.items()
        if name in old and _is_trained(old[name], t, made.trained[name])
    }


def _is_trained(old: onnx.TensorProto, new: onnx.TensorProto, sha256: str) -> bool:
    """Whether a tensor has the stated new values, of the same type and shape as before."""
    alike = (old.data_type, list(old.dims)) == (new.data_type, list(new.dims))
    try:
        hashes = [provenance.content(t) for t in (old, new)] if alike else []
    except ValueError:  # not as long as its shape
        return False
    return alike and hashes[1] == sha256 != hashes[0]
