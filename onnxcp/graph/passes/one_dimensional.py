"""Convolutions along one axis as convolutions over an image of one row.

ONNX Runtime's CPU provider has its blocked layout for two axes alone. Between convolutions the
nodes that allow it work on images, too, so that tensors do not go back and forth.
"""

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from onnxcp.graph.operators import operator
from onnxcp.graph.passes.edit import Edit, Node, Pass, is_a

ROW = 2  # the axis that an image has before its columns
AXES_AS_INPUT = 13  # the opset since which Squeeze and Unsqueeze read their axes
SINGLE = (
    *("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "Elu", "Selu", "HardSigmoid", "HardSwish"),
    *("Softplus", "Softsign", "Erf", "Exp", "Neg", "Sqrt", "Abs", "Gelu", "Mish", "Identity"),
)
PAIRS = ("Add", "Mul", "Sub", "Div")
POOLS = ("MaxPool", "AveragePool")
DOUBLED = {"kernel_shape": 1, "strides": 1, "dilations": 1}  # what the row's axis has


def two_dimensional(edit: Edit) -> int:
    """Put Conv over [N, C, 1, L] in the place of Conv over [N, C, L]; how many."""
    lifted = _lifted(edit)
    names = {name: edit.fresh(f"{name}/image") for node in lifted for name in node.output if name}
    images = dict[str, str]()  # of tensors that are made elsewhere
    chosen = {id(node) for node in lifted}
    for node in lifted:
        edit.replace([node], list(_nodes(edit, node, names, images, chosen)))
    return sum(is_a(node, "Conv") for node in lifted)


def _lifted(edit: Edit) -> list[Node]:
    """Convolutions of one axis, and nodes that read nothing but what these and others like them
    give."""
    lifted, given = list[Node](), set[str]()
    for node in edit.nodes:
        if _is_convolution(edit, node) or _follows(edit, node, given):
            lifted.append(node)
            given.update(node.output)
    return lifted if any(is_a(node, "Conv") for node in lifted) else []


def _is_convolution(edit: Edit, node: Node) -> bool:
    if not is_a(node, "Conv"):
        return False
    weight = edit.value(node.input[1])
    return weight is not None and weight.ndim == 3 and weight.dtype == np.float32


def _follows(edit: Edit, node: Node, given: set[str]) -> bool:
    """Whether a node computes the same on images, of tensors that are `given` as such."""
    if len([name for name in node.output if name]) != 1:
        return False
    if operator(node) in SINGLE or operator(node) in POOLS or is_a(node, "BatchNormalization"):
        return node.input[0] in given and not (is_a(node, *POOLS) and _is_odd(node))
    if not is_a(node, *PAIRS) or not given & set(node.input):
        return False
    others = [name for name in node.input if name not in given]
    return all(_column(edit.value(name)) is not None for name in others)


def _is_odd(node: Node) -> bool:
    """Whether a pooling has what says nothing of an axis, such as an order of storage."""
    return any(a.name == "storage_order" and a.i for a in node.attribute)


def _column(values: np.ndarray | None) -> np.ndarray | None:
    """Stored numbers as they go along an image: one, or one a channel [C, 1, 1]."""
    if values is None:
        return None
    if values.size == 1 and values.ndim <= 3:
        return values.reshape(1)
    if values.ndim in (2, 3) and values.shape[-1] == 1 and values.size == values.shape[-2]:
        return values.reshape(-1, 1, 1)
    return None


def _nodes(
    edit: Edit, node: Node, names: dict[str, str], images: dict[str, str], chosen: set[int]
) -> Iterator[Node]:
    """A node over images, with what turns tensors into images before it and back behind it."""
    made = Node.FromString(node.SerializeToString())
    _double(made)
    for place, name in enumerate(node.input):
        if name in names:
            made.input[place] = names[name]
        elif place == 0 and is_a(node, "Conv"):
            if name not in images:
                images[name] = edit.fresh(f"{name}/image")
                yield _turned(edit, "Unsqueeze", name, images[name])
            made.input[place] = images[name]
        elif (values := edit.value(name) if name else None) is not None:
            made.input[place] = _stored(edit, node, place, values)
    for place, name in enumerate(node.output):
        if name:
            made.output[place] = names[name]
    yield made
    for name in node.output:
        readers = edit.readers.get(name, [])
        if name and (name in edit.visible or any(id(n) not in chosen for n in readers)):
            yield _turned(edit, "Squeeze", names[name], name)


def _stored(edit: Edit, node: Node, place: int, values: np.ndarray) -> str:
    """The name of stored numbers as a node over images reads them."""
    name = str(node.input[place])
    if is_a(node, "Conv") and place == 1:
        return edit.store(values[:, :, None, :], f"{name}/image")
    column = _column(values) if is_a(node, *PAIRS) else None
    return name if column is None or column.size == 1 else edit.store(column, f"{name}/image")


def _double(node: Node) -> None:
    """Give the attributes of a window those of the row, in place."""
    for attribute in node.attribute:
        numbers = list(attribute.ints)
        if attribute.name in DOUBLED and len(numbers) == 1:
            attribute.ints[:] = [DOUBLED[attribute.name], *numbers]
        elif attribute.name == "pads" and len(numbers) == 2:
            attribute.ints[:] = [0, numbers[0], 0, numbers[1]]


def _turned(edit: Edit, kind: str, source: str, target: str) -> Node:
    """A node that adds the axis of the row, or takes it away."""
    make: Callable[..., Node] = onnx.helper.make_node
    if edit.opset < AXES_AS_INPUT:
        return make(kind, [source], [target], f"{target}/{kind}", axes=[ROW])
    axes = edit.store(np.array([ROW], np.int64), f"{target}/axes")
    return make(kind, [source, axes], [target], f"{target}/{kind}")


ROWS = Pass("convolutions along one axis, as rows of images", two_dimensional)
