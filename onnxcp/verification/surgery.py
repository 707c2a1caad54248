"""The check that a rewritten model is the original with kernels replaced by equivalent chains.

It needs only the two models; it knows forms only from the metadata. In order, it checks that nodes
without a chain are the original's; that each chain has the geometry and connections of the node it
replaces; that its weights are those that were written; and that it computes the same as the
convolution composed from its stages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxcp.chain import Chain, Kernel
from onnxcp.data.roles import Inputs
from onnxcp.graph import io, passes, provenance
from onnxcp.graph.pass_table import PASSES
from onnxcp.graph.shapes import infer
from onnxcp.graph.shortcuts import as_in
from onnxcp.graph.sites import Site, Skip, node_names
from onnxcp.graph.splice import rewrite
from onnxcp.graph.structure import Changes, changes, is_chain_node, named
from onnxcp.measure.judged_outputs import Judged, find
from onnxcp.progress import Progress, silent
from onnxcp.quantization.precision import FLOAT16, INT8, precision_of
from onnxcp.runtime.providers import Target
from onnxcp.runtime.survey import survey
from onnxcp.verification import recompose, records
from onnxcp.verification.chain_outputs import Pair
from onnxcp.verification.exact import Proof, prove
from onnxcp.verification.read_chains import Reader

NOT_OURS = "not checked: not written by onnxcp"
NARROWED = (  # {} a precision
    "not checked: weights are rounded to {} and nodes folded or added; verify the float32 model "
    "that it was made of"
)
HEX = 12  # digits of a hash that are shown
NAMED = 5  # tensors that are shown


@dataclass(frozen=True, slots=True)
class SiteCheck:
    """The check of one chain.

    `kernel_error` is ‖K − K̂‖ / ‖K‖ of the kernel that it stands for. `relative_l2` is the
    difference between the outputs of chain and kernel, None if that was not run.
    """

    name: str
    form: str | None
    rank: int | None
    kernel_error: float
    relative_l2: float | None = None


@dataclass(frozen=True, slots=True)
class Surgery:
    """`skipped` says why nothing was checked, or is None. `relative_l2` is of the tensor that
    differs most, None where nothing was run; `tolerance` is what it may be. `by_layer`: outputs
    differ by more, and every chain was compared with its layer alone. `trained` names tensors
    of the original that training changed by the metadata: nothing else can tell. `passes` are
    the exact passes that the candidate was written with."""

    skipped: str | None = None
    sites: tuple[SiteCheck, ...] = ()
    failures: tuple[str, ...] = ()
    relative_l2: float | None = None
    tolerance: float | None = None
    samples: int = 0
    by_layer: bool = False
    trained: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()

    @property
    def unchecked(self) -> str | None:
        """What could not be checked; None if everything was."""
        if self.trained:
            count = f"{len(self.trained)} tensor{'s' * (len(self.trained) != 1)}"
            return f"not checked: training changed {count} of the original: {_few(self.trained)}"
        return self.skipped

    @property
    def ok(self) -> bool:
        return not self.failures


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED)


@dataclass(frozen=True, slots=True, eq=False)
class _ReadBack:
    """Chains by the site they replace; `failures` for nodes that are not a valid chain."""

    sites: Mapping[str, Site]
    chains: Mapping[str, Chain]
    failures: tuple[str, ...]


def check(
    reference: io.Model,
    candidate: io.Model,
    inputs: Inputs,
    target: Target,
    reference_target: Target | None = None,
    progress: Progress = silent,
    judged: Judged | None = None,
) -> Surgery:
    """Check the surgery, without judging how good the approximation is.

    `judged` are the tensors by which the two models are compared, if they are known already.

    Raises:
        ModelError: the reference does not run, or the candidate does not and no other failure
            explains it.
    """
    made = provenance.read(candidate.proto)
    if not made.is_ours:
        return Surgery(NOT_OURS)
    narrow, was = precision_of(candidate.proto), precision_of(reference.proto)
    if narrow == INT8 or (narrow == FLOAT16 and was != narrow):
        return Surgery(NARROWED.format(narrow), (), tuple(_lost(reference, candidate, made)))
    progress("check the surgery", 0, 1)
    trained = records.trained(reference.proto, candidate.proto, made)
    asked, known = reference, infer(reference.proto, inputs.shapes)
    passed = passes.as_in(asked.proto, candidate.proto, known)
    reference = _as_written(replace(asked, proto=passed), candidate, trained)
    proof = _proof(asked.proto, passed, candidate, inputs, target)
    found = changes(reference.proto, candidate.proto, made.sites)
    layers = survey(reference, inputs.shapes, reference_target or target, inputs.timed_feeds)
    back = _read_back(reference.proto, candidate.proto, found, layers)
    failures = [
        *_origin(asked, candidate, made),
        *found.failures,
        *back.failures,
        *_records(reference.proto, made, back),
        *proof.failures,
        *records.faults(asked.proto, candidate.proto, made, back.chains, back.sites),
    ]
    sites, kernels = _sites(back, made)
    checked = Surgery(
        None,
        sites,
        tuple(failures),
        trained=tuple(trained),
        passes=passes.passes_of(candidate.proto),
    )
    if found.failures or back.failures or not kernels:
        if not proof.errors:
            return checked
        return replace(checked, relative_l2=proof.largest, tolerance=proof.tolerance)
    pair = Pair(reference, candidate, [back.sites[n] for n in back.chains], back.chains, kernels)
    ran = pair.run(inputs.surgery_feeds, target, judged or find(reference, target))
    return replace(
        checked,
        sites=tuple(replace(s, relative_l2=ran.errors[s.name]) for s in sites),
        failures=(*failures, *ran.failures),
        relative_l2=ran.relative_l2,
        tolerance=ran.tolerance,
        samples=ran.samples,
        by_layer=ran.by_layer,
    )


def _sites(
    back: _ReadBack, made: provenance.Provenance
) -> tuple[tuple[SiteCheck, ...], dict[str, Kernel]]:
    """Each chain compared with its record, and the kernels that the chains stand for."""
    kernels, sites = dict[str, Kernel](), list[SiteCheck]()
    for name, chain in back.chains.items():
        kernel, site = recompose.kernel(chain), back.sites[name]
        sites.append(_site_check(site, kernel, made))
        kernels[name] = kernel.astype(site.kernel.dtype)  # half as large
    return tuple(sites), kernels


def _proof(
    asked: onnx.ModelProto,
    passed: onnx.ModelProto,
    candidate: io.Model,
    inputs: Inputs,
    target: Target,
) -> Proof:
    """The check that the candidate's exact passes, which made `passed` of the reference, do not
    change what it computes."""
    names = passes.passes_of(candidate.proto)
    unknown = [
        f"{name}: by the metadata an exact pass, but this version has none of that name"
        for name in names
        if name not in PASSES
    ]
    if passed is asked:
        return Proof({}, 0.0, tuple(unknown))
    proof = prove(asked, passed, inputs.surgery_feeds, target)
    return replace(proof, failures=(*unknown, *proof.failures))


def _as_written(
    reference: io.Model, candidate: io.Model, trained: Mapping[str, onnx.TensorProto]
) -> io.Model:
    """The reference with the shortcuts and trained tensors of the candidate."""
    reference = replace(reference, proto=as_in(reference.proto, candidate.proto))
    if not trained:
        return reference
    proto = rewrite(reference.proto, {}, (), metadata={}).proto
    for tensor in proto.graph.initializer:
        if tensor.name in trained:
            tensor.CopyFrom(trained[tensor.name])
    return replace(reference, proto=proto)


def _lost(reference: io.Model, candidate: io.Model, made: provenance.Provenance) -> Iterable[str]:
    """Failures that show that a model was not made from the reference.

    Its source must be the reference or the reference's source, and its chains must be present.
    """
    is_source = precision_of(reference.proto) != INT8
    if is_source and provenance.read(reference.proto).sources != made.sources:
        yield from _origin(reference, candidate, made)
    yield from records.broken_seal(made)
    for name in made.sites:
        if not any(is_chain_node(node, [name]) for node in candidate.proto.graph.node):
            yield _missing(name)


def _missing(name: str) -> str:
    return f"{name}: by the metadata it was replaced, but its chain is not there"


def _origin(reference: io.Model, candidate: io.Model, made: provenance.Provenance) -> Iterable[str]:
    if reference.sha256 not in (*made.sources, candidate.sha256):
        of = ", ".join(sha256[:HEX] for sha256 in made.sources) or "an unknown one"
        yield (
            f"by its metadata the candidate was made of another model, with sha256 {of}…; "
            f"{reference.path} has {reference.sha256[:HEX]}…"
        )


def _read_back(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    found: Changes,
    known: tuple[tuple[Site, ...], tuple[Skip, ...]],
) -> _ReadBack:
    sites = {reference.graph.node[s.index].output[0]: s for s in known[0]}
    reasons = {skip.layer.name: skip.reason for skip in known[1]}
    pairs = zip(reference.graph.node, node_names(reference.graph), strict=True)
    names = {output: name for node, name in pairs for output in node.output}
    reader, chains, failed = Reader(candidate, found.fresh), dict[str, Chain](), dict[str, str]()
    for node in found.replaced:
        site, name = sites.get(node.output[0]), names[node.output[0]]
        chain = (
            f"replaced, though {reasons.get(name, 'no chain could be')}"
            if site is None
            else reader.chain(site, node)
        )
        if isinstance(chain, str):
            failed[name] = chain
        else:
            chains[name] = chain
    unused = [n for n in reader.unused if not is_chain_node(n, failed)]
    failures = [f"{name}: {why}" for name, why in failed.items()]
    failures += dict.fromkeys(f"node {named(node)} is part of no chain" for node in unused)
    return _ReadBack({s.name: s for s in known[0]}, chains, tuple(failures))


def _records(
    reference: onnx.ModelProto, made: provenance.Provenance, back: _ReadBack
) -> Iterable[str]:
    """Failures for recorded chains that are missing or changed."""
    if made.chains is None:
        yield f"the metadata {provenance.CHAINS} are missing or damaged: weights cannot be checked"
        return
    read = {name for name in made.sites if name in back.chains}
    for name in made.sites:
        kept = any(is_chain_node(node, [name]) for node in reference.graph.node)
        tried = any(failure.startswith(f"{name}: ") for failure in back.failures)
        if name not in read and not kept and not tried:
            yield _missing(name)


def _site_check(site: Site, kernel: Kernel, made: provenance.Provenance) -> SiteCheck:
    written = (made.chains or {}).get(site.name)
    size = math.sqrt(float(np.square(site.kernel, dtype=np.float64).sum()))
    error = float(np.linalg.norm(kernel - site.kernel))
    ratio = error / size if size else (0.0 if error == 0 else float("inf"))
    if written is None:
        return SiteCheck(site.name, None, None, ratio)
    return SiteCheck(site.name, written.form, written.rank, ratio)
