"""The networks that figures are taken on, their data, and a command run to its end."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path(os.environ.get("ONNXCP_DATA", "../shared/data"))
CALIBRATING = 400  # of the ImageNet folder; the rest judge
SIDE = 64  # of the tiles of Set5: what a layer of VDSR reads and writes stays in the cache
JUDGED = ("bird", "butterfly", "head", "woman")  # of Set5; "baby" calibrates

MODELS = {
    "resnet20": "cifar10/resnet20.onnx",
    "resnet56": "cifar10/resnet56.onnx",
    "resnet18": "imagenet/resnet18.onnx",
    "darknet": "imagenet/darknet_tiny.onnx",
    "vdsr": "vdsr/vdsr.onnx",
    "mnist": "mnist/mnist-8.onnx",
    "classifier": "odd/winml_pytorch_cifar_ImageClassifier.onnx",
    "ultraface": "odd/ultraface_RFB-320.onnx",
}
HALVES = {"scale": 1 / 255, "mean": [0.5], "std": [0.5]}
FACES = {"scale": 1 / 128, "mean": [127 / 128]}  # how the detector reads
SEEN, HEIGHT, WIDTH = 192, 240, 320  # pictures that it sees, a third to calibrate


def sources(name: str, data: Path, folder: Path) -> list[str]:
    """Options that name disjoint samples to calibrate and to judge by; what has to be made for
    them is written to `folder`."""
    if name == "vdsr":
        return super_resolution(data / "vdsr/Set5", folder)
    if name == "ultraface":
        return pictures(data / "imagenet/val", folder)
    if name == "mnist":
        judged, calibrating = f"{data}/mnist/test.npz", f"{data}/mnist/train.npz[:1024]"
        recipe = "none"
    elif MODELS[name].startswith("cifar10") or name == "classifier":
        judged, calibrating = f"{data}/cifar10/test.npz", f"{data}/cifar10/calibration.npz"
        recipe = "cifar10" if name != "classifier" else written(HALVES, folder / "halves.json")
    else:
        images, recipe = data / "imagenet/val", "imagenet"
        if name == "darknet":
            images, recipe = labelled_for_darknet(images, folder)
        calibrating, judged = f"{images}[:{CALIBRATING}]", f"{images}[{CALIBRATING}:]"
    return ["--data", judged, "--calibration", calibrating, "--preprocess", recipe]


def written(recipe: Mapping[str, Any], path: Path) -> str:
    """The path of a recipe, which is written there."""
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return str(path)


def pictures(images: Path, folder: Path) -> list[str]:
    """Pictures of anything, at the detector's size: what it says of them must stay."""
    found = sorted(images.glob("*.JPEG"))[:SEEN]
    shown = [np.asarray(Image.open(p).convert("RGB").resize((WIDTH, HEIGHT))) for p in found]
    path, third = folder / "pictures.npz", len(found) // 3
    np.savez(path, np.stack(shown))
    judged = ["--data", f"{path}[{third}:]", "--calibration", f"{path}[:{third}]"]
    return [*judged, "--preprocess", written(FACES, folder / "faces.json"), "--metric", "cosine"]


def labelled_for_darknet(images: Path, folder: Path) -> tuple[Path, str]:
    """The images under Darknet's own numbers of classes, and how it reads them."""
    made = folder / "darknet"
    made.mkdir(exist_ok=True)
    for image in images.glob("*.JPEG"):
        link = made / image.name
        link.unlink(missing_ok=True)
        link.symlink_to(image.resolve())
    shutil.copyfile(images / "labels_darknet.csv", made / "labels.csv")
    return made, written({"resize": 224, "scale": 1 / 255}, folder / "darknet.json")


def super_resolution(images: Path, folder: Path) -> list[str]:
    """Luminance of Set5 at ×2 in tiles: one image calibrates, the others judge."""
    low, _ = pair(images, "baby")
    np.savez(folder / "calibration.npz", input=tiles(low))
    sides = zip(*(pair(images, name) for name in JUDGED), strict=True)
    reads, wanted = (np.concatenate([tiles(image) for image in side]) for side in sides)
    np.savez(folder / "judged.npz", input=reads, label=wanted)
    data = [str(folder / "judged.npz"), "--calibration", str(folder / "calibration.npz")]
    return ["--data", *data, "--metric", "psnr"]


def pair(images: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Luminance in 0..1 of an image shrunk to a half and enlarged again, and of itself."""
    low, high = (luminance(images / f"{name}_GT{end}.bmp") for end in ("_scale_2", ""))
    return low, high


def luminance(path: Path) -> np.ndarray:
    """Y of ITU-R BT.601 in studio swing, as super-resolution is judged by, [height, width]."""
    red, green, blue = np.moveaxis(np.asarray(Image.open(path).convert("RGB"), np.float32), 2, 0)
    y = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    return np.asarray(y / 255, np.float32)


def tiles(image: np.ndarray) -> np.ndarray:
    """All whole tiles of an image, [tiles, 1, SIDE, SIDE]."""
    rows, columns = (size // SIDE for size in image.shape)
    whole = image[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE)
    return whole.swapaxes(1, 2).reshape(-1, 1, SIDE, SIDE)


def run(command: list[str]) -> tuple[float, int]:
    """Wall seconds of a command and the bytes its largest process held.

    Raises:
        SystemExit: it failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # 1: done, but not faster
        raise SystemExit(f"exit code {process.returncode}: {shlex.join(command)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit
