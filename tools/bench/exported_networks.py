"""Small networks as exporters write them, with random weights, for time alone.

    python tools/bench/exported_networks.py mobilenet-v3 -o model.onnx

- recognition: blocks of PP-LCNetV3 over strips of text, as Paddle exports them: a scale and a shift
  of one number behind every convolution and activation, HardSwish as Add, Clip, Mul, Div.
- mobilenet-v3: MobileNetV3-small (Howard et al. 2019, arXiv:1905.02244, table 2), with HardSwish
  and HardSigmoid as Add, Clip, Div.
- audio: four convolutions along time, 64 channels and windows of 9, between them Relu.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 13, 8
SMALL = (  # window, expansion, outputs, squeeze-and-excitation, HardSwish, stride
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
STRIPS = ((32, 1, 1), (64, 1, 1), (64, 1, 1), (128, 2, 1), (128, 1, 1), (240, 2, 1), (240, 1, 1))


class Network:
    """A graph that grows at its end; every method gives the tensor that it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [output], f"n{len(self.nodes)}", **attributes)
        )
        return output

    def stored(self, values: object) -> str:
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        window: tuple[int, ...],
        *strides: int,
        group: int = 1,
    ) -> str:
        """A convolution with a bias that keeps the image's size but for strides."""
        size = (outputs, inputs // group, *window)
        scale = np.sqrt(2 / (size[1] * np.prod(window)))
        weight = self.stored(scale * self._rng.standard_normal(size))
        bias = self.stored(0.1 * self._rng.standard_normal(outputs))
        pads = [side // 2 for side in window] * 2
        steps = list(strides or (1,) * len(window))
        return self.node("Conv", x, weight, bias, group=group, pads=pads, strides=steps)

    def affine(self, x: str) -> str:
        """A scale and a shift of one number each, as tensors of shape [1]."""
        low = self._rng.uniform(0.9, 1.1)
        return self.node("Add", self.node("Mul", x, self.stored([low])), self.stored([0.05]))

    def clipped(self, x: str) -> str:
        shifted = self.node("Add", x, self.stored(3.0))
        return self.node("Clip", shifted, self.stored(0.0), self.stored(6.0))

    def model(self, last: str, image: tuple[int, ...]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None] * len(image))],
            self.tensors,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        made.ir_version = IR
        onnx.checker.check_model(made)
        return made


def recognition() -> onnx.ModelProto:
    net = Network()

    def swish(x: str) -> str:
        product = net.node("Mul", x, net.clipped(x))
        return net.affine(net.node("Div", product, net.stored(6.0)))

    x, channels = swish(net.affine(net.conv("x", 3, 16, (3, 3), 2, 2))), 16
    for outputs, down, along in STRIPS:
        x = swish(net.affine(net.conv(x, channels, channels, (3, 3), down, along, group=channels)))
        x = swish(net.affine(net.conv(x, channels, outputs, (1, 1))))
        channels = outputs
    return net.model(net.conv(x, channels, 96, (1, 1)), (1, 3, 48, 320))


def mobilenet_v3() -> onnx.ModelProto:
    net = Network()

    def swish(x: str) -> str:
        return net.node("Mul", x, net.node("Div", net.clipped(x), net.stored(6.0)))

    def excited(x: str, channels: int) -> str:
        inner = -(-channels // 32) * 8
        mean = net.node("GlobalAveragePool", x)
        squeezed = net.node("Relu", net.conv(mean, channels, inner, (1, 1)))
        scale = net.node(
            "Div", net.clipped(net.conv(squeezed, inner, channels, (1, 1))), net.stored(6.0)
        )
        return net.node("Mul", scale, x)

    x, channels = swish(net.conv("x", 3, 16, (3, 3), 2, 2)), 16
    for window, wide, outputs, has_excitation, is_hard, stride in SMALL:
        activation: Callable[[str], str] = swish if is_hard else lambda t: net.node("Relu", t)
        y = x if wide == channels else activation(net.conv(x, channels, wide, (1, 1)))
        y = activation(net.conv(y, wide, wide, (window, window), stride, stride, group=wide))
        y = net.conv(excited(y, wide) if has_excitation else y, wide, outputs, (1, 1))
        x = net.node("Add", x, y) if stride == 1 and outputs == channels else y
        channels = outputs
    x = net.node("GlobalAveragePool", swish(net.conv(x, channels, 576, (1, 1))))
    return net.model(net.conv(x, 576, 1000, (1, 1)), (1, 3, 224, 224))


def audio() -> onnx.ModelProto:
    net, x = Network(), "x"
    for _ in range(4):
        x = net.node("Relu", net.conv(x, 64, 64, (9,)))
    return net.model(x, (1, 64, 1000))


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "recognition": recognition,
    "mobilenet-v3": mobilenet_v3,
    "audio": audio,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    onnx.save(NETWORKS[options.network](), options.output)


if __name__ == "__main__":
    main()
