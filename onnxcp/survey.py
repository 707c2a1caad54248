"""Sites of a loaded model at the shapes of a run, with the runtime's help where ONNX shape
inference stops (operators it does not know)."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

from onnxcp import files, shapes, sites
from onnxcp.providers import Target, open_runner
from onnxcp.sites import Site, Skip
from onnxcp.tensors import Feeds, Shape


def survey(
    model: files.Model, inputs: Mapping[str, Shape], target: Target, feeds: Feeds
) -> tuple[tuple[Site, ...], tuple[Skip, ...]]:
    """Sites and skips of a model; every site knows the size of the image it sees."""
    known = shapes.infer(model.proto, inputs)
    found, skips = sites.find(model.proto, known)
    unknown = any(site.image is None for site in found)
    if not unknown and all(skip.code != "padding" for skip in skips):
        return found, skips
    return sites.find(model.proto, {**known, **_traced(model, known, target, feeds)})


def _traced(
    model: files.Model, known: Mapping[str, Shape], target: Target, feeds: Feeds
) -> dict[str, Shape]:
    """Shapes of what convolutions read and write, seen in one run of the model."""
    wanted = {
        n
        for node in model.proto.graph.node
        if node.op_type == "Conv"
        for n in (node.input[0], node.output[0])
    }
    open_runner(model.path, target)  # what it refuses is said by the model's own name
    missing = sorted(wanted - set(known) - {o.name for o in model.proto.graph.output})
    watched = onnx.ModelProto()
    watched.CopyFrom(model.proto)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "watched.onnx"
        files.save(watched, path, model.external)
        runner = open_runner(path, target)
        results = runner(feeds)
    seen = {n: tuple(r.shape) for n, r in zip(runner.outputs, results, strict=True)}
    return {name: seen[name] for name in wanted if name in seen}
