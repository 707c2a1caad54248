"""Sites of chosen shapes, without a model."""

from dataclasses import replace

import numpy as np
import onnx
from tiny import chain_model

from onnxcp.chain import Geometry
from onnxcp.graph.layers import Layer
from onnxcp.graph.sites import Site
from onnxcp.latency.candidates import dense_stage
from onnxcp.latency.context import Graph


def site(name="a", shape=(32, 32, 3, 3), image=(8, 8), bias=None):
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    layer = Layer(name, "Conv", shape)
    return Site(layer, 0, kernel, bias, Geometry(pads=(1, 1, 1, 1)), image, 1, f"{name}.weight")


def context(site):
    """The context of a site alone in a model."""
    channels = site.shape[1] * site.group
    image, batch = site.image, site.batch
    shape = (batch, channels, *image) if site.geometry.dimensions else (batch, *image, channels)
    serialized = chain_model((dense_stage(site),), shape, site.kernel.dtype, site.layer.op)
    inside = replace(site, index=0, source="x")
    return Graph(onnx.load_from_string(serialized), {}).context(inside)
