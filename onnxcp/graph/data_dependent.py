"""Which tensors of a graph have a shape that depends on the values fed: boxes that
NonMaxSuppression leaves, places that NonZero finds.

Two facts are followed through the graph. A tensor's *values* depend on the data unless they
come from constants and shapes alone. Its *shape* does where an operator that selects reads such
values, where such values say how large it is, or where the shape of what is read does. What only
a run can tell, of loops, branches and operators of other domains, is left to the caller:
`uncertain` names what these give.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from onnxcp.graph.index import bodies, reads
from onnxcp.graph.operators import is_known, operator

SELECTING = ("NonMaxSuppression", "NonZero", "Unique", "Compress", "StringSplit")  # in a body
OF_SHAPE = ("Shape", "Size")  # whose values are of shapes alone
CONTROL = ("If", "Loop", "Scan", "SequenceMap")
EVERY = range(16)
SIZED_BY: Mapping[str, Collection[int]] = {  # the inputs whose values say how large outputs are
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "Range": EVERY,
    "Slice": EVERY[1:],
    "Pad": EVERY[1:],
    "TopK": (1,),
    "OneHot": (1,),
    "Resize": EVERY[1:],
    "Upsample": (1,),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "Split": (1,),
    "CenterCropPad": (1,),
    "MaxUnpool": (2,),
    "AffineGrid": (1,),
    "Col2Im": (1, 2),
    "SplitToSequence": (1,),
    "Compress": (1,),
    "NonMaxSuppression": EVERY,
    "NonZero": (0,),
    "Unique": (0,),
    "StringSplit": (0,),
}


@dataclass(frozen=True, slots=True)
class Dependence:
    """Names of tensors whose `values` and whose `shapes` depend on the data, and those of which
    only a run can tell whether their shapes do."""

    values: frozenset[str]
    shapes: frozenset[str]
    uncertain: frozenset[str]


def dependence(
    graph: onnx.GraphProto, inputs: Collection[str], known: Collection[str] = ()
) -> Dependence:
    """What depends on the data fed as `inputs`; the shapes of the tensors in `known` do."""
    values, shapes, uncertain = set(inputs), set(known), set[str]()
    for node in graph.node:
        read, given = reads(node), set(filter(None, node.output))
        if is_shaped_by_data(node, read, values, shapes):
            shapes |= given
        if operator(node) in OF_SHAPE:
            values |= given if shapes.intersection(read) else set()
        elif values.intersection(read) or shapes.intersection(read):
            values |= given
            if _only_a_run_can_tell(node):
                uncertain |= given
    return Dependence(frozenset(values), frozenset(shapes), frozenset(uncertain - shapes))


def is_shaped_by_data(
    node: onnx.NodeProto,
    read: Collection[str],
    values: Collection[str],
    shapes: Collection[str],
) -> bool:
    """Whether what a node gives has a shape that depends on the data."""
    name = operator(node)
    if name not in OF_SHAPE and any(r in shapes for r in read):
        return True
    if name in CONTROL and _selects(node):
        return any(r in values for r in read)
    sizes = SIZED_BY.get(name, ())
    return any(place in sizes and r in values for place, r in enumerate(node.input))


def _selects(node: onnx.NodeProto) -> bool:
    """Whether a body holds an operator that selects."""
    return any(
        operator(inner) in SELECTING or _selects(inner)
        for body in bodies(node)
        for inner in body.node
    )


def _only_a_run_can_tell(node: onnx.NodeProto) -> bool:
    return operator(node) in CONTROL or not is_known(node)
