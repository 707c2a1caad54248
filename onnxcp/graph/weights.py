"""Weights out of a model and back into it, by name: nothing else of it changes.

Knows neither torch nor forms: names, arrays, and the metadata that tell what was written.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import onnx

from onnxcp.chain import Geometry, Stage
from onnxcp.errors import UsageError
from onnxcp.graph import chain_names, products, provenance
from onnxcp.graph.constants import Constants
from onnxcp.graph.metadata import seal
from onnxcp.graph.operators import operator
from onnxcp.graph.splice import rewrite
from onnxcp.graph.structure import is_chain_node

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
PRODUCTS = ("Conv", "MatMul", "Gemm")
NORMS = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")
TRAINED = (*PRODUCTS, *NORMS, "ConvTranspose", "PRelu")
STATISTICS = slice(3, 5)  # of a BatchNormalization's inputs: mean and variance


def chains(proto: onnx.ModelProto) -> dict[str, list[str]]:
    """The weights of every chain's stages in order, by site."""
    made = provenance.read(proto)
    found = {site: [n for n in proto.graph.node if is_chain_node(n, [site])] for site in made.sites}
    return {
        site: [node.input[1] for node in nodes if operator(node) in PRODUCTS]
        for site, nodes in found.items()
        if nodes
    }


def rank_one(proto: onnx.ModelProto) -> tuple[tuple[str, ...], ...]:
    """Weights of the convolution chains that are sums of rank-one terms, of which sensitivity is
    known: every stage between the first and the last is depthwise, and there are no groups."""
    dims = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    found = []
    for names in chains(proto).values():
        first, *between, last = (dims[name] for name in names)
        terms = first[0]
        if len(first) > 2 and last[1] == terms and all(d[:2] == (terms, 1) for d in between):
            found.append(tuple(names))
    return tuple(found)


def trainable(proto: onnx.ModelProto, which: str) -> list[str]:
    """Names of float initializers: of chains with their biases, of all nodes, or of those whose
    names match a glob. Statistics of BatchNormalization are measured, not trained.

    Raises:
        UsageError: there are none.
    """
    stored = {t.name for t in proto.graph.initializer if t.data_type in FLOATS}
    sites = list(chains(proto))
    measured = {
        name
        for node in proto.graph.node
        if operator(node) == "BatchNormalization"
        for name in node.input[STATISTICS]
    }
    read = dict[str, None]()
    for node in proto.graph.node:
        if operator(node) in (*TRAINED, "Add") and _is_meant(node, which, sites):
            read |= dict.fromkeys(name for name in node.input[1:] if name in stored - measured)
    if not read:
        raise UsageError(
            f"<<weights={which}>>: names no weights of the model; give chains, all, or a glob of "
            "node names that `onnxcp inspect` lists"
        )
    return list(read)


def _is_meant(node: onnx.NodeProto, which: str, sites: Sequence[str]) -> bool:
    if which == "chains":
        return is_chain_node(node, sites)
    return operator(node) in TRAINED and (which == "all" or fnmatchcase(node.name, which))


def with_weights(proto: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with other values in some initializers, and metadata that say so.

    Raises:
        ValueError: a name that is no initializer, or an array of another shape.
    """
    made = rewrite(proto, {}, (), metadata={}).proto
    stored = {t.name: t for t in made.graph.initializer}
    for name, values in weights.items():
        tensor = stored[name]
        if tuple(tensor.dims) != values.shape:
            raise ValueError(f"{name}: of shape {tuple(tensor.dims)}, not {values.shape}")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        fresh = onnx.numpy_helper.from_array(values.astype(dtype), name)
        for field in ("float_data", "double_data", "int32_data", "raw_data"):
            tensor.ClearField(field)
        tensor.raw_data = fresh.raw_data
    _note(made, proto, weights)
    return made


def _note(proto: onnx.ModelProto, before: onnx.ModelProto, changed: Iterable[str]) -> None:
    """Write the hashes of the chains anew, where they were those of the chains before."""
    made = provenance.read(proto)
    if not made.is_ours or made.chains is None:
        return
    records = {}
    for site, row in made.chains.items():
        old, new = (_stages(model, site) for model in (before, proto))
        records[site] = provenance.renewed(row, old, new)
    own = {name for names in chains(proto).values() for name in names}
    own |= _added(proto, made.chains)
    stored = {t.name: t for t in proto.graph.initializer}
    others = {name: provenance.content(stored[name]) for name in changed if name not in own}
    entries = {p.key: p for p in proto.metadata_props}
    entries[provenance.CHAINS].value = provenance.text(records)
    if others:
        entry = entries.get(provenance.TRAINED) or proto.metadata_props.add(key=provenance.TRAINED)
        entry.value = json.dumps({**made.trained, **others}, sort_keys=True)
    seal(proto)


def _added(proto: onnx.ModelProto, sites: Iterable[str]) -> set[str]:
    """What chains read that came with them: a bias, too, where the layer had none."""
    kept = tuple(sites)
    return {t.name for t in proto.graph.initializer if chain_names.is_of(t.name, kept)}


def _stages(proto: onnx.ModelProto, site: str) -> list[Stage]:
    """A chain's stages, each with whatever bias its node adds."""
    constants, found = Constants.of(proto), list[Stage]()
    for node in proto.graph.node:
        if not is_chain_node(node, [site]):
            continue
        stored = [_array(constants, name) for name in node.input[1:3] if name]
        if operator(node) == "Add":
            found[-1] = replace(found[-1], bias=stored[0])
            continue
        weight = stored[0] if operator(node) == "Conv" else products.as_kernel(node, stored[0])
        slides = Geometry(dimensions=weight.ndim - 2)
        bias = stored[1] if len(stored) > 1 else None
        found.append(Stage(chain_names.role_of(node.name), weight, slides, bias=bias))
    return found


def _array(constants: Constants, name: str) -> np.ndarray:
    tensor = constants.find(name)
    assert tensor is not None, name  # chains store all they read
    return onnx.numpy_helper.to_array(tensor)
