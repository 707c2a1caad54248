"""Train the bundled digits classifier and write it, with its data, as ONNX and NPZ files.

The network is a small CNN for scikit-learn's 8x8 digits. Run from the project root:

    python tools/models/train_models.py --out models

The split never changes; ``--seed`` moves only the initial weights, the order of the batches and
the augmentation. Only the training images shape the weights. One JSON object goes to stdout;
progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

SPLIT_SEED = 20
TRAIN_COUNT = 900
CALIBRATION_COUNT = 200
SCALE = 16.0  # the largest pixel value
THREADS = 2
TOLERANCE = 1e-4

BATCH = 32
PEAK_RATE = 0.2
WEIGHT_DECAY = 5e-3
MOMENTUM = 0.9
LABEL_SMOOTHING = 0.05
MAX_SHIFT = 1.0  # pixels
MAX_ANGLE = 0.15  # radians
MAX_ZOOM = 0.1
NOISE = 0.03  # of the pixel range

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """One convolution (no bias) with its batch normalisation."""

    conv: str
    norm: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1


STEM = Layer("stem/conv", "stem/bn", 1, 32, 5)
WIDE = Layer("wide/conv", "wide/bn", 32, 64, 5)
BLOCK1 = Layer("block/conv1", "block/bn1", 64, 64, 3)
BLOCK2 = Layer("block/conv2", "block/bn2", 64, 64, 3)
DOWN = Layer("down/conv", "down/bn", 64, 128, 3, stride=2)
LAST = Layer("last/conv", "last/bn", 128, 128, 3)
LAYERS = (STEM, WIDE, BLOCK1, BLOCK2, DOWN, LAST)
CLASSES = 10


@dataclass(frozen=True)
class Part:
    """Images [N,1,8,8] with values 0..16 and their labels."""

    input: Images
    label: Labels

    def take(self, index: npt.NDArray[np.int64]) -> Part:
        """Return the rows that `index` names."""
        return Part(self.input[index], self.label[index])


class Net(nn.Module):
    """The classifier; it takes images already scaled to 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({layer.conv: make_conv(layer) for layer in LAYERS})
        self.norms = nn.ModuleDict({layer.norm: nn.BatchNorm2d(layer.outputs) for layer in LAYERS})
        self.head = nn.Linear(LAST.outputs, CLASSES)

    def unit(self, x: Tensor, layer: Layer) -> Tensor:
        """Convolve and normalise."""
        y: Tensor = self.norms[layer.norm](self.convs[layer.conv](x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [N,10]."""
        x = F.relu(self.unit(x, STEM))
        x = F.relu(self.unit(x, WIDE))
        x = F.relu(x + self.unit(F.relu(self.unit(x, BLOCK1)), BLOCK2))
        x = F.relu(self.unit(x, DOWN))
        x = F.relu(self.unit(x, LAST))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def make_conv(layer: Layer) -> nn.Conv2d:
    """Return the layer's convolution with its initial weights."""
    pad = layer.kernel // 2
    return nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, pad, bias=False)


# --- data -------------------------------------------------------------------------------------


def load_parts() -> tuple[Part, Part, Part]:
    """Return the disjoint, stratified training, calibration and evaluation parts."""
    pixels, labels = load_digits(return_X_y=True)
    whole = Part(pixels.reshape(-1, 1, 8, 8).astype(np.uint8), labels.astype(np.int64))
    train, rest = cut(whole, np.arange(len(labels)), TRAIN_COUNT)
    calibration, evaluation = cut(whole, rest, CALIBRATION_COUNT)
    return whole.take(train), whole.take(calibration), whole.take(evaluation)


def cut(
    whole: Part, index: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw `count` of the indices, stratified by label; return them and the others, sorted."""
    first, second = train_test_split(
        index, train_size=count, random_state=SPLIT_SEED, stratify=whole.label[index]
    )
    return np.sort(first), np.sort(second)


def to_tensor(part: Part) -> tuple[Tensor, Tensor]:
    """Return scaled float images and labels."""
    return torch.from_numpy(part.input).float() / SCALE, torch.from_numpy(part.label)


# --- training ---------------------------------------------------------------------------------


def uniform(count: int, limit: float) -> Tensor:
    """Draw `count` values from [-limit, limit]."""
    return (2 * torch.rand(count) - 1) * limit


def random_affine(count: int, side: int) -> Tensor:
    """Draw affine maps [count,2,3]: a small rotation, zoom and shift."""
    angle, zoom = uniform(count, MAX_ANGLE), 1 + uniform(count, MAX_ZOOM)
    shift_x, shift_y = (uniform(count, 2 * MAX_SHIFT / side) for _ in range(2))
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    rows = torch.stack([cos, -sin, shift_x, sin, cos, shift_y], dim=1)
    return rows.reshape(count, 2, 3)


def augment(x: Tensor) -> Tensor:
    """Move each image a little and add noise."""
    grid = F.affine_grid(random_affine(len(x), x.shape[-1]), list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, align_corners=False)
    return moved + NOISE * torch.randn_like(moved)


def batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of augmented batches in random order; a last short batch is dropped."""
    order = torch.randperm(len(x))
    for start in range(0, len(x) - BATCH + 1, BATCH):
        index = order[start : start + BATCH]
        yield augment(x[index]), y[index]


def decay_groups(net: Net) -> list[dict[str, object]]:
    """Let the weights decay; batch normalisation and biases do not, as that kills channels."""
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    return [
        {"params": weights, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]


def train(part: Part, epochs: int) -> Net:
    """Train a network on `part` for a fixed number of epochs."""
    x, y = to_tensor(part)
    net = Net()
    optimizer = torch.optim.SGD(decay_groups(net), PEAK_RATE, MOMENTUM, nesterov=True)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        loss = train_epoch(net, optimizer, schedule, batches(x, y))
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}/{epochs}: loss {loss:.4f}", file=sys.stderr)
    net.eval()
    return net


def train_epoch(
    net: Net,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: Iterator[tuple[Tensor, Tensor]],
) -> float:
    """Take one step for each batch; return the last batch's loss."""
    loss = torch.zeros(())
    for x, y in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y, label_smoothing=LABEL_SMOOTHING)
        loss.backward()
        optimizer.step()
        schedule.step()
    return float(loss.detach())


# --- export -----------------------------------------------------------------------------------


class Graph:
    """Collect the nodes and initializers of an ONNX graph."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Tensor) -> str:
        """Add an initializer and return its name."""
        array = np.ascontiguousarray(value.detach().numpy().astype(np.float32))
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = "logits" if name == "head/gemm" else f"{name}.out"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def conv(self, x: str, layer: Layer) -> str:
        """Add the layer's Conv node; the first one also scales the pixels."""
        weight = get_conv(self.net, layer).weight
        weight = weight / SCALE if layer is STEM else weight
        return self.node(
            "Conv",
            layer.conv,
            [x, self.constant(f"{layer.conv}.weight", weight)],
            kernel_shape=[layer.kernel] * 2,
            pads=[layer.kernel // 2] * 4,
            strides=[layer.stride] * 2,
        )

    def unit(self, x: str, layer: Layer) -> str:
        """Add the layer's Conv and BatchNormalization nodes."""
        norm = get_norm(self.net, layer)
        assert norm.running_mean is not None and norm.running_var is not None
        names = [
            self.constant(f"{layer.norm}.scale", norm.weight),
            self.constant(f"{layer.norm}.bias", norm.bias),
            self.constant(f"{layer.norm}.mean", norm.running_mean),
            self.constant(f"{layer.norm}.var", norm.running_var),
        ]
        inputs = [self.conv(x, layer), *names]
        return self.node("BatchNormalization", layer.norm, inputs, epsilon=norm.eps)

    def relu(self, name: str, x: str) -> str:
        """Add a Relu node."""
        return self.node("Relu", name, [x])

    def head(self, x: str) -> str:
        """Add the pooling and the linear classifier."""
        pooled = self.node("GlobalAveragePool", "head/pool", [x])
        flat = self.node("Flatten", "head/flatten", [pooled], axis=1)
        weight = self.constant("head/gemm.weight", self.net.head.weight)
        bias = self.constant("head/gemm.bias", self.net.head.bias)
        return self.node("Gemm", "head/gemm", [flat, weight, bias], transB=1)


def get_conv(net: Net, layer: Layer) -> nn.Conv2d:
    """Return the layer's convolution."""
    conv = net.convs[layer.conv]
    assert isinstance(conv, nn.Conv2d)
    return conv


def get_norm(net: Net, layer: Layer) -> nn.BatchNorm2d:
    """Return the layer's batch normalisation."""
    norm = net.norms[layer.norm]
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def build_graph(net: Net) -> onnx.GraphProto:
    """Return the network as an ONNX graph."""
    graph = Graph(net)
    x = graph.relu("stem/relu", graph.unit("input", STEM))
    x = graph.relu("wide/relu", graph.unit(x, WIDE))
    inner = graph.relu("block/relu1", graph.unit(x, BLOCK1))
    total = graph.node("Add", "block/add", [x, graph.unit(inner, BLOCK2)])
    x = graph.relu("block/relu2", total)
    x = graph.relu("down/relu", graph.unit(x, DOWN))
    x = graph.relu("last/relu", graph.unit(x, LAST))
    graph.head(x)
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    return helper.make_graph(graph.nodes, "digits", [source], [result], graph.initializers)


def build_model(net: Net) -> onnx.ModelProto:
    """Return the network as a checked ONNX model."""
    model = helper.make_model(
        build_graph(net),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="onnxcp tools/train_models.py",
        doc_string="Small CNN for 8x8 digits; float32 input [N,1,8,8] with values 0..16.",
    )
    metadata = {
        "dataset": "scikit-learn load_digits: a copy of the test set of the UCI Optical "
        "Recognition of Handwritten Digits data (E. Alpaydin, C. Kaynak), CC BY 4.0",
        "licence": "Apache-2.0",
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


# --- checks and files -------------------------------------------------------------------------


def run_model(path: Path, images: Images) -> npt.NDArray[np.float32]:
    """Return the logits that ONNX Runtime computes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"input": images.astype(np.float32)})[0])


def check_same(net: Net, part: Part, logits: npt.NDArray[np.float32]) -> float:
    """Return the largest difference from torch's logits; raise when it is over the tolerance."""
    with torch.no_grad():
        expected = net(to_tensor(part)[0]).numpy()
    difference = float(np.abs(expected - logits).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"ONNX Runtime differs from torch by {difference:.3g}")
    return difference


def top1(logits: npt.NDArray[np.float32], labels: Labels) -> float:
    """Return the share of images whose largest logit is at the label."""
    return float((logits.argmax(axis=1) == labels).mean())


def score(path: Path, part: Part) -> float:
    """Return the model's top-1 on the part, through ONNX Runtime."""
    return round(top1(run_model(path, part.input), part.label), 6)


def save_part(path: Path, part: Part) -> None:
    """Write the part as an NPZ file."""
    np.savez_compressed(path, input=part.input, label=part.label)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder to write to")
    parser.add_argument("--epochs", type=int, default=150, help="passes over the training data")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    return parser.parse_args()


def set_up_torch(seed: int) -> None:
    """Make torch repeatable."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


def main() -> None:
    """Train, export, check and report."""
    args = parse_args()
    set_up_torch(args.seed)
    training, calibration, evaluation = load_parts()
    net = train(training, args.epochs)
    model = build_model(net)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "digits.onnx"
    onnx.save(model, path)
    save_part(args.out / "digits.npz", evaluation)
    save_part(args.out / "digits_calibration.npz", calibration)
    logits = run_model(path, evaluation.input)
    difference = check_same(net, evaluation, logits)
    report = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "bytes": path.stat().st_size,
        "train": len(training.label),
        "calibration": len(calibration.label),
        "evaluation": len(evaluation.label),
        "calibration_top1": score(path, calibration),
        "top1": round(top1(logits, evaluation.label), 6),
        "max_difference_from_torch": difference,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
