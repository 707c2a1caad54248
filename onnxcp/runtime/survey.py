"""Sites of a loaded model at the shapes of a run, with the runtime's help where ONNX shape
inference stops (operators it does not know)."""

from collections.abc import Mapping

from onnxcp.graph import io, shapes, sites
from onnxcp.graph.constants import Constants
from onnxcp.graph.input_specs import Feeds, Shape, known_shapes
from onnxcp.graph.sites import Site, Skip
from onnxcp.graph.splice import with_outputs
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import temporary

Found = tuple[tuple[Site, ...], tuple[Skip, ...]]


def inferred(model: io.Model, inputs: Mapping[str, Shape]) -> Found:
    """Sites and skips as far as ONNX shape inference can tell, without a runtime."""
    fixed = shapes.infer(model.proto, known_shapes(model.inputs))
    return sites.find(model.proto, shapes.infer(model.proto, inputs), fixed)


def survey(model: io.Model, inputs: Mapping[str, Shape], target: Target, feeds: Feeds) -> Found:
    """Sites and skips of a model; every site knows the size of the image it sees."""
    found, skips = inferred(model, inputs)
    always = known_shapes(model.inputs)
    is_fixed = len(always) == len(model.inputs)
    padding = is_fixed and any(skip.code == "padding" for skip in skips)
    if not padding and all(site.image is not None for site in found):
        return found, skips
    known = shapes.infer(model.proto, inputs)
    known |= _traced(model, known, target, feeds)
    fixed = known if is_fixed else shapes.infer(model.proto, always)
    return sites.find(model.proto, known, fixed)


def _traced(
    model: io.Model, known: Mapping[str, Shape], target: Target, feeds: Feeds
) -> dict[str, Shape]:
    """Shapes of what layers read and write, seen in one run of the model."""
    constants = Constants.of(model.proto)
    layers = [node for node in model.proto.graph.node if sites.is_layer(node, constants)]
    wanted = {name for node in layers for name in (node.input[0], node.output[0])}
    open_runner(model.path, target)  # what it refuses is said by the model's own name
    missing = sorted(wanted - set(known) - {o.name for o in model.proto.graph.output})
    watched = with_outputs(model.proto, missing)
    with temporary.folder() as folder:
        path = folder / "watched.onnx"
        io.save(watched, path, model.external)
        given = [o.name for o in model.proto.graph.output if o.name in wanted]
        runner = open_runner(path, target, [*missing, *given] or None)
        results = runner(feeds)
    seen = {n: tuple(r.shape) for n, r in zip(runner.outputs, results, strict=True)}
    return {name: seen[name] for name in wanted if name in seen}
