"""Sites of a loaded model at the shapes of a run.

Where ONNX shape inference stops, at operators it does not know, shapes come from one run in ONNX
Runtime.
"""

from collections.abc import Mapping

from onnxcp.graph import io, shapes, sites
from onnxcp.graph.constants import Constants
from onnxcp.graph.input_specs import Feeds, Shape, known_shapes
from onnxcp.graph.sites import Site, Skip
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.runtime.watch import open_watched

SitesAndSkips = tuple[tuple[Site, ...], tuple[Skip, ...]]


def inferred(model: io.Model, inputs: Mapping[str, Shape]) -> SitesAndSkips:
    """Sites and skips by ONNX shape inference alone; some image sizes may be unknown."""
    fixed = shapes.infer(model.proto, known_shapes(model.inputs))
    return sites.find(model.proto, shapes.infer(model.proto, inputs), fixed)


def survey(
    model: io.Model, inputs: Mapping[str, Shape], target: Target, feeds: Feeds
) -> SitesAndSkips:
    """Sites and skips of a model; every site has the size of its input image.

    Raises what `open_runner` raises.
    """
    inferred_sites, skips = inferred(model, inputs)
    stated_inputs = known_shapes(model.inputs)
    is_fixed = len(stated_inputs) == len(model.inputs)
    needs_padding = is_fixed and any(skip.code == "padding" for skip in skips)
    if not needs_padding and all(site.image is not None for site in inferred_sites):
        return inferred_sites, skips
    sizes = shapes.infer(model.proto, inputs)
    sizes |= _traced(model, sizes, target, feeds)
    fixed = sizes if is_fixed else shapes.infer(model.proto, stated_inputs)
    return sites.find(model.proto, sizes, fixed)


def _traced(
    model: io.Model, inferred_shapes: Mapping[str, Shape], target: Target, feeds: Feeds
) -> dict[str, Shape]:
    """Shapes of the inputs and outputs of layers, from one run of the model."""
    constants = Constants.of(model.proto)
    layers = [node for node in model.proto.graph.node if sites.is_layer(node, constants)]
    tensors = {name for node in layers for name in (node.input[0], node.output[0])}
    open_runner(model.path, target)  # so that errors name the model's own file
    missing = sorted(tensors - set(inferred_shapes) - {o.name for o in model.proto.graph.output})
    outputs = [o.name for o in model.proto.graph.output if o.name in tensors]
    runner = open_watched(model.proto, [*missing, *outputs], target, model.external)
    seen = dict(zip(runner.outputs, runner(feeds), strict=True))
    return {name: tuple(seen[name].shape) for name in tensors if name in seen}
