"""The commands the project promises, on real networks and real images."""

import json
import os
import pathlib
import subprocess
import sys

import jsonschema
import onnxruntime
import pytest

from onnxcp.report.json import schema

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = pathlib.Path(os.environ.get("ONNXCP_DATA", ROOT / "../shared/data")).resolve()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "ONNXCP_DATA" not in os.environ and not FOLDER.is_dir(),
        reason=f"no real models at {FOLDER}; set ONNXCP_DATA",
    ),
]


def optimize(folder, model, *arguments):
    """Run the real command; exit code and RUN.json."""
    run = folder / "run.json"
    command = [sys.executable, "-m", "onnxcp", "optimize", str(FOLDER / model)]
    command += ["-o", str(folder / "out.onnx"), "--report", str(run), "--jobs", "2", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    report = json.loads(run.read_text())
    jsonschema.validate(report, schema())
    assert report["exit_code"] == ended.returncode
    return ended.returncode, report


CIFAR = ["--data", str(FOLDER / "cifar10/test.npz"), "--preprocess", "cifar10"]
CIFAR += ["--calibration", str(FOLDER / "cifar10/calibration.npz")]


@pytest.mark.parametrize(
    ("form", "ratio", "kept"), [("cp3", 1, 0.87), ("cp3", 2, 0.91), ("cp4", 1, 0.85)]
)
def test_uniform_ranks_keep_accuracy_without_training(tmp_path, form, ratio, kept):
    forced = ["--form", form, "--rank", f"*={ratio}c", "--exclude", "conv1", "--threads", "1"]
    _, report = optimize(tmp_path, "cifar10/resnet20.onnx", *CIFAR, *forced)
    assert len([s for s in report["sites"] if s["decision"] == form]) == 18
    assert report["accuracy"]["after"] >= kept


def test_resnet20_is_faster_at_one_point_of_drop(tmp_path):
    budget = ["--max-drop", "0.01", "--threads", "1"]
    code, report = optimize(tmp_path, "cifar10/resnet20.onnx", *CIFAR, *budget)
    assert code == 0
    assert report["latency"]["speedup"] > 1.3
    assert report["latency"]["speedup_ci"][0] > 1
    assert report["accuracy"]["drop"] <= 0.01
    assert report["accuracy"]["before"] == pytest.approx(0.9157, abs=0.0005)
    assert report["search"]["held_out"]
    assert report["search"]["samples"] == {"calibration": 1024, "search": 1667, "final": 3333}
    onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])


def test_error_preserving_correction_halves_sensitivity_on_resnet_kernels(tmp_path):
    forced = ["--form", "cp3", "--rank", "layer*=1.0c", "--threads", "1"]
    _, report = optimize(tmp_path, "cifar10/resnet20.onnx", *forced)
    replaced = [s for s in report["sites"] if s["decision"] == "cp3"]
    assert len(replaced) == 18
    for site in replaced:
        assert site["sensitivity_after"] < site["sensitivity_before"] / 2, site["name"]


def test_the_imagenet_preset_gives_the_published_accuracy(tmp_path):
    images = str(FOLDER / "imagenet/val")
    data = ["--data", f"{images}[:400]", "--calibration", f"{images}[400:420]"]
    data += ["--preprocess", "imagenet"]
    forced = ["--form", "cp3", "--rank", "layer1.0.conv1=0.5c", "--threads", "1"]
    _, report = optimize(tmp_path, "imagenet/resnet18.onnx", *data, *forced)
    assert report["accuracy"]["before"] == pytest.approx(0.765, abs=0.0001)
