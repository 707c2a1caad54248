"""Draw what happens to one convolution: the nodes around it before and after, as SVG.

    python tools/models/draw_graph.py models/digits.onnx fast.onnx block/conv1 > picture.svg

Boxes are nodes with their weight's shape; the numbers are multiply-adds of one sample.
"""

import argparse
from html import escape
from pathlib import Path

import onnx

from onnxcp.graph import io, shapes
from onnxcp.graph.input_specs import known_shapes
from onnxcp.graph.layers import Layer
from onnxcp.graph.sites import find

WIDTH, BOX, HEIGHT, GAP, TOP = 300, 260, 54, 26, 64
COLOURS = {"Conv": "#dbe9f6", "chain": "#d6f0d8"}


def layers(model: io.Model) -> dict[str, Layer]:
    """Convolutions of a model by name."""
    sites, skips = find(model.proto, shapes.infer(model.proto, known_shapes(model.inputs)))
    return {layer.name: layer for layer in [s.layer for s in sites] + [s.layer for s in skips]}


def around(model: io.Model, site: str) -> list[onnx.NodeProto]:
    """The nodes that a site is or became, with the two that follow."""
    nodes = model.proto.graph.node
    mine = [i for i, n in enumerate(nodes) if n.name == site or n.name.startswith(f"{site}/cp/")]
    if not mine:
        raise SystemExit(f"{model.path} has no node {site!r}")
    return list(nodes[mine[0] : mine[-1] + 3])


def box(node: onnx.NodeProto, layer: Layer | None, left: int, top: int) -> str:
    """One node: its name, its weight's shape, its multiply-adds."""
    kind = "chain" if "/cp/" in node.name else node.op_type
    detail = node.op_type
    if layer is not None and layer.shape is not None:
        depthwise = " depthwise" if layer.group > 1 else ""
        shape = "×".join(map(str, layer.shape))
        detail = f"Conv {shape}{depthwise}: {(layer.macs or 0) / 1e6:.2f} M"
    x, middle = left + (WIDTH - BOX) // 2, left + WIDTH // 2
    return (
        f'<rect x="{x}" y="{top}" width="{BOX}" height="{HEIGHT}" rx="7" '
        f'fill="{COLOURS.get(kind, "#f2f2f2")}" stroke="#888"/>'
        f'<text x="{middle}" y="{top + 22}" font-weight="bold">{escape(node.name)}</text>'
        f'<text x="{middle}" y="{top + 41}" fill="#444">{escape(detail)}</text>'
    )


def column(model: io.Model, site: str, title: str, left: int) -> tuple[str, int]:
    """One model's nodes from top to bottom, and where the drawing ends."""
    known, parts, top = layers(model), [], TOP
    middle = left + WIDTH // 2
    total = sum(known[n.name].macs or 0 for n in around(model, site) if n.name in known)
    words = f"{title}: {total / 1e6:.2f} M multiply-adds"
    parts.append(f'<text x="{middle}" y="32" font-size="15">{escape(words)}</text>')
    for node in around(model, site):
        arrow = f"M{middle} {top - GAP + 2} V{top - 4}"
        parts.append(f'<path d="{arrow}" stroke="#555" marker-end="url(#head)"/>')
        parts.append(box(node, known.get(node.name), left, top))
        top += HEIGHT + GAP
    return "".join(parts), top


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("site")
    options = parser.parse_args()
    left, first = column(io.load(options.before), options.site, "before", 0)
    right, second = column(io.load(options.after), options.site, "after", WIDTH)
    size = f'width="{2 * WIDTH}" height="{max(first, second)}"'
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" '
        'font-size="13" text-anchor="middle"><defs><marker id="head" markerWidth="8" '
        'markerHeight="8" refX="4" refY="3" orient="auto"><path d="M0 0 L6 3 L0 6 z" '
        'fill="#555"/></marker></defs><rect width="100%" height="100%" fill="white"/>'
        f"{left}{right}</svg>"
    )


if __name__ == "__main__":
    main()
