"""Chains read back from a written model: consecutive nodes become stages again.

This is the inverse of `graph.chains`. Nodes that are not a chain in place of their site give a
text that says why. Only roles are taken from the names of nodes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from onnxcp.chain import Chain, Geometry, Stage
from onnxcp.errors import ModelError
from onnxcp.graph import products
from onnxcp.graph.constants import Constants
from onnxcp.graph.index import makers
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import element_type, groups, padded
from onnxcp.graph.sites import FLOATS, Site
from onnxcp.graph.structure import named
from onnxcp.verification import recompose

OPERATORS = ("Conv", *products.PRODUCTS)


class Reader:
    """Reads chains from a model's `fresh` nodes; `unused` are those not in any chain so far."""

    def __init__(self, candidate: onnx.ModelProto, fresh: Iterable[onnx.NodeProto]) -> None:
        self._constants = Constants.of(candidate)
        self._makers = makers(fresh)

    @property
    def unused(self) -> list[onnx.NodeProto]:
        return list(self._makers.values())

    def chain(self, site: Site, node: onnx.NodeProto) -> Chain | str:
        """The chain in place of a site's node, or the reason why there is none.

        The chain has no bias if it reads the one that the site's node read.
        """
        nodes = self._between(node.input[0], node.output[0])
        if isinstance(nodes, str):
            return nodes
        stages = list[Stage]()
        for new in nodes:
            made = (
                self._with_bias(stages, new) if operator(new) == "Add" else self._stage(new, node)
            )
            if isinstance(made, str):
                return made
            stages = made if isinstance(made, list) else [*stages, made]
        if products.has_bias(node) and stages[-1].bias is None and not _reads(nodes[-1], node):
            return f"the bias {node.input[2]!r} is not added"
        return _unfit(tuple(stages), site, operator(node), nodes) or tuple(stages)

    def _between(self, source: str, target: str) -> list[onnx.NodeProto] | str:
        """The consecutive nodes from one tensor to another."""
        found, reading = list[onnx.NodeProto](), target
        while reading != source:
            node = self._makers.pop(reading, None)
            if node is None or not node.input:
                return f"its chain starts from {reading!r}, not from {source!r}"
            found.append(node)
            reading = node.input[0]
        return found[::-1]

    def _stage(self, node: onnx.NodeProto, old: onnx.NodeProto) -> Stage | str:
        if operator(node) not in OPERATORS:
            return f"{named(node)} is a {operator(node)}, which is part of no chain"
        stored = self._stored(node.input[1]) if len(node.input) > 1 else None
        if stored is None:
            return f"{named(node)} has no stored weight of numbers"
        if operator(node) in products.PRODUCTS and (why := products.unfit(node, self._constants)):
            return f"{named(node)} is no plain product: {why[0]} {why[1]}"
        weight = products.as_kernel(node, stored)
        group = groups(node)
        slides = _geometry(node, weight.shape[2:])
        if isinstance(slides, str):
            return slides
        if group < 1 or weight.ndim < 2 or len(weight) % group:
            return f"{named(node)} has {group} groups for a weight of {_sizes(weight.shape)}"
        made = Stage(node.name.rpartition("/")[2], weight, slides, group)
        if not products.has_bias(node) or _reads(node, old):
            return made
        return self._own_bias(made, node, node.input[2])

    def _stored(self, name: str) -> np.ndarray | None:
        """Stored values; None if not stored, not numbers, or not as many as the shape states."""
        tensor = self._constants.find(name)
        dtype = None if tensor is None else element_type(tensor.data_type)
        if tensor is None or dtype is None or dtype not in FLOATS:  # numpy takes None for float64
            return None
        try:
            return onnx.numpy_helper.to_array(tensor)
        except ValueError:
            return None

    def _own_bias(self, stage: Stage, node: onnx.NodeProto, name: str) -> Stage | str:
        values = self._stored(name)
        bias = None if values is None else products.as_bias(values, len(stage.weight))
        if bias is None:
            return f"the bias {name!r} of {named(node)} is no stored number for every channel"
        return replace(stage, bias=bias)

    def _with_bias(self, stages: list[Stage], node: onnx.NodeProto) -> list[Stage] | str:
        """The bias of a MatMul is an Add behind it."""
        if not stages or stages[-1].bias is not None or len(node.input) != 2:
            return f"{named(node)} is an Add, which is part of no chain"
        made = self._own_bias(stages[-1], node, node.input[1])
        return made if isinstance(made, str) else [*stages[:-1], made]


def _reads(new: onnx.NodeProto, old: onnx.NodeProto) -> bool:
    """Whether a node adds the same bias as another one did."""
    return products.has_bias(new) and products.has_bias(old) and new.input[2] == old.input[2]


def _geometry(node: onnx.NodeProto, window: tuple[int, ...]) -> Geometry | str:
    if operator(node) in products.PRODUCTS:
        return Geometry(dimensions=0)
    try:
        found = padded(node, window, None)
    except ModelError as error:
        return error.text
    return f"{named(node)} has auto_pad {found}" if isinstance(found, str) else found


def _unfit(chain: Chain, site: Site, op: str, nodes: list[onnx.NodeProto]) -> str | None:
    """Why a chain cannot compute what its site did; None if it can."""
    if any((operator(node) == "Conv") != (op == "Conv") for node in nodes):
        return f"{named(nodes[0])} and the others do not take the place of a {op}"
    if len({stage.weight.ndim for stage in chain} | {site.kernel.ndim}) > 1:
        return "its stages are not of one number of dimensions"
    dtypes = {str(stage.weight.dtype) for stage in chain} - {str(site.kernel.dtype)}
    if dtypes:
        return f"its weights are {', '.join(dtypes)}, not {site.kernel.dtype}"
    reason = recompose.misfit(chain)
    if reason is not None:
        return reason
    if recompose.groups(chain) != site.group:
        return f"its channels fall into {recompose.groups(chain)} groups, not {site.group}"
    if recompose.shape(chain) != site.shape:
        return f"its kernel is {_sizes(recompose.shape(chain))}, not {_sizes(site.shape)}"
    return _slides_otherwise(recompose.geometry(chain), site)


def _slides_otherwise(found: Geometry, site: Site) -> str | None:
    wide = [size > 1 for size in site.shape[2:]]
    wanted: Mapping[str, tuple[int, ...]] = {
        "strides": site.geometry.strides,
        "pads": site.geometry.pads,
        "dilations": tuple(
            d if w else 1 for d, w in zip(site.geometry.dilations, wide, strict=True)
        ),
    }
    for name, numbers in wanted.items():
        if getattr(found, name) != numbers:
            return f"its {name} are {_sizes(getattr(found, name))}, not {_sizes(numbers)}"
    return None


def _sizes(numbers: Iterable[int]) -> str:
    return "×".join(map(str, numbers))
