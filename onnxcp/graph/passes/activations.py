"""Written-out activations as the operators that they are.

Exporters write x · clip(x + 3, 0, 6) / 6 node by node. ONNX Runtime's CPU provider knows Div
and a lone Clip in its plain layout alone, so every use of it sends a blocked tensor through two
reorders; HardSigmoid is fused to the convolution before it, or stays in the blocked layout.

Sources: Howard et al. 2019, arXiv:1905.02244 (HardSwish, HardSigmoid); ONNX operators
HardSigmoid-1, Sigmoid-1, LeakyRelu-1.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.graph.operators import operator
from onnxcp.graph.passes.affine import Affine, affine, after
from onnxcp.graph.passes.edit import Edit, Node, Pass, Upstream, attribute, is_a

CLOSE = 1e-6  # relative: numbers written as text, or 1/6 in float32


def hard_activations(edit: Edit) -> int:
    """Put HardSigmoid, and x · HardSigmoid(x), in the place of what is written out; how many."""
    count = 0
    for node in reversed(edit.nodes):
        if edit.maker.get(node.output[0]) is not node:
            continue  # part of one found before
        found = _swish(edit, node) or _sigmoid(edit, node)
        if found is not None:
            edit.replace(found.nodes, _written(edit, found, node))
            count += 1
    return count


def smooth_activations(edit: Edit) -> int:
    """Put Sigmoid in the place of 1 / (1 + exp(−x)), and x · Sigmoid(x) in that of the quotient
    with x above; how many."""
    count = 0
    for node in edit.nodes:
        found = _logistic(edit, node)
        if found is None:
            continue
        source, is_product, nodes = found
        target = node.output[0]
        made = target if not is_product else edit.fresh(f"{target}/sigmoid")
        new = [onnx.helper.make_node("Sigmoid", [source], [made], f"{node.name or target}/sigmoid")]
        if is_product:
            new.append(onnx.helper.make_node("Mul", [source, made], [target], node.name))
        edit.replace(nodes, new)
        count += 1
    return count


def leaky_relus(edit: Edit) -> int:
    """Put LeakyRelu in the place of max(x, a · x) for 0 < a < 1; how many."""
    count = 0
    for node in edit.nodes:
        found = _leaky(edit, node)
        if found is not None:
            source, slope, nodes = found
            made = onnx.helper.make_node(
                "LeakyRelu", [source], [node.output[0]], node.name, alpha=slope
            )
            edit.replace(nodes, [made])
            count += 1
    return count


@dataclass(frozen=True, slots=True, eq=False)
class _Hard:
    """clip(alpha · source + beta, 0, 1), times the source where `is_product`."""

    source: str
    alpha: float
    beta: float
    is_product: bool
    nodes: list[Node]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """clip(source, low, high)."""

    low: float
    high: float
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class _Clamped:
    """outer(clip(inner(source), low, high)), all by single numbers, and the nodes of it."""

    source: str
    inner: Affine
    low: float
    high: float
    outer: Affine
    nodes: list[Node]


def _written(edit: Edit, found: _Hard, node: Node) -> list[Node]:
    target, name = node.output[0], node.name or node.output[0]
    made = target if not found.is_product else edit.fresh(f"{target}/hard_sigmoid")
    new = [
        onnx.helper.make_node(
            "HardSigmoid",
            [found.source],
            [made],
            f"{name}/hard_sigmoid",
            alpha=found.alpha,
            beta=found.beta,
        )
    ]
    if found.is_product:
        new.append(onnx.helper.make_node("Mul", [found.source, made], [target], name))
    return new


def _swish(edit: Edit, node: Node) -> _Hard | None:
    """x · HardSigmoid(x) that ends in a node."""
    walk = Upstream(edit, node)
    scaled, product = _affines(edit, walk), walk.maker
    if not is_a(product, "Mul") or scaled.shift.any():
        return None
    assert product is not None
    for place in (0, 1):
        source, other = product.input[1 - place], edit.maker.get(product.input[place])
        if other is None or not edit.read_by_one(product.input[place], product):
            continue
        clamped = _clamped(edit, other)
        if clamped is None or clamped.source != source:
            continue
        numbers = _unit(clamped, after(clamped.outer, scaled))
        if numbers is not None:
            return _Hard(source, *numbers, True, [*walk.nodes, product, *clamped.nodes])
    return None


def _sigmoid(edit: Edit, node: Node) -> _Hard | None:
    """A HardSigmoid that ends in a node, and is written as two nodes or more."""
    clamped = _clamped(edit, node)
    if clamped is None or len(clamped.nodes) < 2:
        return None
    numbers = _unit(clamped, clamped.outer)
    return None if numbers is None else _Hard(clamped.source, *numbers, False, clamped.nodes)


def _unit(clamped: _Clamped, outer: Affine) -> tuple[float, float] | None:
    """alpha and beta, where what is clamped goes from 0 to 1 in the end."""
    scale, shift = float(outer.scale[0]), float(outer.shift[0])
    ends = (clamped.low * scale + shift, clamped.high * scale + shift)
    if not (abs(ends[0]) <= CLOSE and abs(ends[1] - 1) <= CLOSE):
        return None
    alpha = float(clamped.inner.scale[0]) * scale
    return (alpha, float(clamped.inner.shift[0]) * scale + shift) if alpha > 0 else None


def _clamped(edit: Edit, node: Node) -> _Clamped | None:
    """What a node gives, as a clamped affine function of a tensor."""
    walk, low, high = Upstream(edit, node), -math.inf, math.inf
    outer = _affines(edit, walk)
    while (bounds := _bounds(edit, walk.maker)) is not None:
        low, high = max(low, bounds.low), min(high, bounds.high)
        walk.take(bounds.source)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    inner = _affines(edit, walk)
    return _Clamped(walk.reading, inner, low, high, outer, walk.nodes)


def _affines(edit: Edit, walk: Upstream) -> Affine:
    """The affine nodes in a row, by single numbers, as one."""
    total = Affine(walk.reading, np.ones(1), np.zeros(1))
    while walk.maker is not None and (step := affine(edit, walk.maker)) is not None:
        total = after(step, total)
        walk.take(step.source)
    return total


def _bounds(edit: Edit, node: Node | None) -> _Bounds | None:
    """The bounds that a node clamps to, and what it reads."""
    if node is None:
        return None
    if is_a(node, "Relu"):
        return _Bounds(0.0, math.inf, node.input[0])
    if is_a(node, "Clip"):
        return _clip(edit, node)
    if is_a(node, "Min", "Max") and len(node.input) == 2:
        for place in (0, 1):
            bound, source = edit.number(node.input[place]), node.input[1 - place]
            if bound is not None and edit.value(source) is None:
                is_low = operator(node) == "Max"
                low, high = (bound, math.inf) if is_low else (-math.inf, bound)
                return _Bounds(low, high, source)
    return None


def _clip(edit: Edit, node: Node) -> _Bounds | None:
    limits = [attribute(node, "min", -math.inf), attribute(node, "max", math.inf)]
    for place in range(1, len(node.input)):
        if node.input[place]:
            number = edit.number(node.input[place])
            if number is None:
                return None
            limits[place - 1] = number
    return _Bounds(limits[0], limits[1], node.input[0])


def _logistic(edit: Edit, node: Node) -> tuple[str, bool, list[Node]] | None:
    """The source of 1 / (1 + exp(−x)) or x / (1 + exp(−x)) that a node ends, and its nodes."""
    walk = Upstream(edit, node)
    if is_a(node, "Reciprocal"):
        above: float | None = 1.0
        walk.take(node.input[0])
    elif is_a(node, "Div"):
        above = edit.number(node.input[0])
        walk.take(node.input[1])
    else:
        return None
    step = affine(edit, walk.maker) if walk.maker is not None else None
    if step is None or step.scale.tolist() != [1.0] or step.shift.tolist() != [1.0]:
        return None
    walk.take(step.source)
    if walk.maker is None or not is_a(walk.maker, "Exp"):
        return None
    walk.take(walk.maker.input[0])
    source = _negated(edit, walk.maker)
    if source is None:
        return None
    walk.take(source)
    is_product = is_a(node, "Div") and node.input[0] == source
    return (source, is_product, walk.nodes) if above == 1.0 or is_product else None


def _negated(edit: Edit, node: Node | None) -> str | None:
    """What a node gives the negative of."""
    if node is None:
        return None
    if is_a(node, "Neg"):
        return str(node.input[0])
    step = affine(edit, node)
    is_minus = step is not None and step.scale.tolist() == [-1.0] and not step.shift.any()
    return step.source if step is not None and is_minus else None


def _leaky(edit: Edit, node: Node) -> tuple[str, float, list[Node]] | None:
    """Source and slope of max(x, a · x) that a node ends, and its nodes."""
    if not is_a(node, "Max") or len(node.input) != 2:
        return None
    for place in (0, 1):
        walk = Upstream(edit, node)
        walk.take(node.input[place])
        step = affine(edit, walk.maker) if walk.maker is not None else None
        if step is None or step.source != node.input[1 - place]:
            continue
        if len(step.scale) == 1 and 0 < step.scale[0] < 1 and not step.shift.any():
            walk.take(step.source)
            return step.source, float(step.scale[0]), walk.nodes
    return None


HARD = Pass("written-out HardSigmoid and HardSwish", hard_activations)
SMOOTH = Pass("written-out Sigmoid and SiLU", smooth_activations)
LEAKY = Pass("written-out LeakyRelu", leaky_relus)
