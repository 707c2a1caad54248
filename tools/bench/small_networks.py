"""The two small networks of Song et al. 2021, trained the ordinary way: cross-entropy, and nothing
that makes them easier to compress.

    python tools/bench/small_networks.py lenet --data ../shared/data -o lenet.onnx

The paper names the convolutions only. The fully connected layers are those of TensorFlow's
tutorials, which have the same convolutions: 1024 on MNIST, 384 and 192 on CIFAR-10. The last
images of train.npz are held out, to choose by; test.npz is read by nobody here. Progress goes to
stderr.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from networks import DATA
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL = 5
CLASSES = 10
THREADS = 1
WARMING = 0.2  # share of the steps in which the rate rises


@dataclass(frozen=True)
class Small:
    """A network, its data and how it is trained. `convs` are output channels of 5×5 convolutions,
    each with ReLU and a 2×2 max pool; `hidden` are the fully connected layers before the last.
    The first `trained` images of train.npz train, the others are held out."""

    folder: str
    preprocess: str
    mean: tuple[float, ...]  # of pixels in 0..1, as `preprocess` has them
    std: tuple[float, ...]
    side: int
    convs: tuple[int, ...]
    hidden: tuple[int, ...]
    trained: int
    epochs: int
    rate: float = 1e-3
    batch: int = 64
    weight_decay: float = 0.01
    dropout: float = 0.5
    flip: bool = False
    shift: int = 0

    @property
    def channels(self) -> int:
        return len(self.mean)


SMALL = {
    "lenet": Small(
        folder="mnist",
        preprocess="unit",
        mean=(0.0,),
        std=(1.0,),
        side=28,
        convs=(32, 64),
        hidden=(1024,),
        trained=54_000,
        epochs=5,
    ),
    "cifar": Small(
        folder="cifar10",
        preprocess="cifar10",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        side=32,
        convs=(64, 64),
        hidden=(384, 192),
        trained=27_000,
        epochs=16,
        flip=True,
        shift=3,
    ),
}


@dataclass(frozen=True)
class Part:
    """Images [N,C,H,W] uint8 and their labels."""

    images: Tensor
    labels: Tensor


def load(small: Small, data: Path) -> tuple[Part, Part]:
    """The images that train, and those held out."""
    with np.load(data / small.folder / "train.npz") as arrays:
        images, labels = torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["label"])
    if images.shape[1] != small.channels:
        images = images.permute(0, 3, 1, 2).contiguous()
    cut = small.trained
    return Part(images[:cut], labels[:cut]), Part(images[cut:], labels[cut:])


def build(small: Small) -> nn.Sequential:
    """The network, with the weights that torch draws."""
    layers: list[nn.Module] = []
    width, side = small.channels, small.side
    for outputs in small.convs:
        layers += [nn.Conv2d(width, outputs, KERNEL, padding=KERNEL // 2), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        width, side = outputs, side // 2
    layers.append(nn.Flatten())
    width *= side * side
    for outputs in small.hidden:
        layers += [nn.Linear(width, outputs), nn.ReLU(), nn.Dropout(small.dropout)]
        width = outputs
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def train(small: Small, part: Part, held: Part, epochs: int) -> nn.Sequential:
    """Train by AdamW under a one-cycle schedule, for a fixed number of epochs."""
    network = build(small).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), small.rate, weight_decay=small.weight_decay)
    steps = len(part.labels) // small.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, small.rate, epochs * steps, pct_start=WARMING
    )
    for epoch in range(epochs):
        network.train()
        for images, labels in batches(small, part):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
        share = top1(small, network, held)
        print(f"epoch {epoch + 1}/{epochs}: {share:.4f} of images held out", file=sys.stderr)
    return network


def batches(small: Small, part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of whole batches in random order, augmented."""
    order = torch.randperm(len(part.labels))
    for start in range(0, len(order) - small.batch + 1, small.batch):
        index = order[start : start + small.batch]
        yield prepared(small, augmented(small, part.images[index])), part.labels[index]


def augmented(small: Small, images: Tensor) -> Tensor:
    """Each image mirrored by chance and moved by up to `shift` pixels."""
    if small.flip:
        mirrored = torch.rand(len(images)) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if small.shift:
        side, count = small.side, len(images)
        wide = F.pad(images, (small.shift,) * 4)
        down, right = (torch.randint(2 * small.shift + 1, (count, 1)) for _ in range(2))
        places = torch.arange(side)
        rows, columns = (down + places)[:, :, None], (right + places)[:, None, :]
        images = wide[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
    return images


def prepared(small: Small, images: Tensor) -> Tensor:
    """What the network reads."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (small.mean, small.std))
    floats = (images.float() / 255 - mean) / std
    return floats.contiguous(memory_format=torch.channels_last)


def top1(small: Small, network: nn.Module, part: Part) -> float:
    """The share of images whose largest output is at the label."""
    network.eval()
    right = 0
    with torch.no_grad():
        for images, labels in zip(part.images.split(500), part.labels.split(500), strict=True):
            right += int((network(prepared(small, images)).argmax(1) == labels).sum())
    return right / len(part.labels)


def export(small: Small, network: nn.Module, path: Path) -> None:
    """Write the network as ONNX, with a dynamic batch."""
    network = network.eval().to(memory_format=torch.contiguous_format)
    example = torch.zeros(1, small.channels, small.side, small.side)
    with warnings.catch_warnings():  # the exporter that needs no further package is the old one
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
            opset_version=17,
            dynamo=False,
        )


def make(name: str, data: Path, path: Path, epochs: int | None = None, seed: int = 0) -> float:
    """Train a network and write it; its accuracy on the images held out."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    small = SMALL[name]
    part, held = load(small, data)
    network = train(small, part, held, epochs or small.epochs)
    export(small, network, path)
    return top1(small, network, held)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=SMALL)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, help="passes over the data, in place of the default")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and augmentation")
    options = parser.parse_args()
    make(options.name, options.data, options.output, options.epochs, options.seed)


if __name__ == "__main__":
    main()
