"""Every real model as a torch module computes what ONNX Runtime does, before and after its
convolutions were replaced.

The models are not part of the project: ONNXCP_DATA says where they are.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.errors import UnsupportedError
from onnxcp.graph import io
from onnxcp.graph.splice import with_outputs
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

torch = pytest.importorskip("torch")

from onnxcp.torchgraph.module import Network
from onnxcp.torchgraph.parity import check_parity

DATA = Path(os.environ.get("ONNXCP_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "ONNXCP_DATA" not in os.environ and not DATA.is_dir(),
        reason=f"no real models at {DATA}; set ONNXCP_DATA",
    ),
]
SINGLE, HALF = 1e-5, 5e-3  # relative L2: rounding of many layers, in float32 and float16
IMAGE = (1, 3, 64, 96)
MODELS = {  # shapes of the inputs that are not fixed by the model
    "cifar10/resnet20.onnx": {"input": (2, 3, 32, 32)},
    "cifar10/resnet56.onnx": {"input": (2, 3, 32, 32)},
    "deployed/mtcnn_onet.onnx": {"input_3": (2, 48, 48, 3)},
    "deployed/ppocr4_det.onnx": {"x": IMAGE},
    "deployed/scrfd_2.5g.onnx": {"input.1": IMAGE},
    "deployed/yunet.onnx": {"input": IMAGE},
    "imagenet/darknet_tiny.onnx": {"input": (1, 3, 224, 224)},
    "imagenet/resnet18.onnx": {"input": (1, 3, 224, 224)},
    "mnist/mnist-8.onnx": {"Input3": (1, 1, 28, 28)},
    "odd/meshnet30_18cls_ext.onnx": {"input": (1, 1, 16, 16, 16)},
    "odd/oww_embedding_model.onnx": {"input_1": (2, 76, 32, 1)},
    "odd/ppocr_v3_det.onnx": {"x": IMAGE},
    "odd/silero_vad.onnx": {"input": (1, 512), "state": (2, 1, 128)},
    "odd/ultraface_RFB-320.onnx": {"input": (1, 3, 240, 320)},
    "odd/winml_SqueezeNet_fp16.onnx": {"data_0": (1, 3, 224, 224)},
    "odd/winml_candy.onnx": {"inputImage": (1, 3, 720, 720)},
    "odd/winml_pytorch_cifar_ImageClassifier.onnx": {"modelInput": (2, 3, 32, 32)},
    "vdsr/vdsr.onnx": {"input": (1, 1, 41, 37)},
}
REFUSED = {"deployed/waifu2x_upconv7.onnx": "opset 6 is outside 7"}
# Its first normalization subtracts a mean of 100, where ONNX Runtime loses digits of values of 1.
SCALES = {"odd/winml_candy.onnx": 100}
# Its sigmoid makes nothing but zeros of noise.
LOGITS = {"odd/ppocr_v3_det.onnx": ["p2o.Add.77"]}
# its convolutions lie in branches; large images, a minute of nothing new
UNTOUCHED = ("odd/silero_vad.onnx", "odd/winml_candy.onnx")


def fed(model):
    """Drawn inputs; where the model asks for a rate of samples, 16 kHz."""
    shapes, rng, feeds = MODELS[name_of(model)], np.random.default_rng(0), {}
    for spec in model.inputs:
        drawn = rng.standard_normal(shapes.get(spec.name, ())) * SCALES.get(name_of(model), 1)
        feeds[spec.name] = np.asarray(drawn if spec.name in shapes else 16000, spec.dtype)
    return feeds


def name_of(model):
    return next(n for n in MODELS if Path(n).stem == model.path.stem.split("-cp")[0])


def parity(path):
    """The largest relative L2 error of its outputs."""
    model, tolerance = io.load(path), HALF if "fp16" in path.name else SINGLE
    proto = with_outputs(model.proto, LOGITS.get(name_of(model), []))
    runner = open_runner(proto.SerializeToString(), Target.named("cpu", 2))
    return check_parity(Network(proto), runner, fed(model), tolerance)


def test_every_model_is_listed():
    assert {str(p.relative_to(DATA)) for p in DATA.rglob("*.onnx")} == {*MODELS, *REFUSED}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_torch_cannot_compute_is_refused_with_the_reason(name):
    with pytest.raises(UnsupportedError, match=REFUSED[name]):
        Network(io.load(DATA / name).proto)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_torch_is_what_onnx_runtime_computes(name):
    assert parity(DATA / name) >= 0


@pytest.mark.parametrize("name", MODELS)
def test_shapes_stay_on_the_cpu_while_data_are_elsewhere(name):
    """The device `meta` has no values, so that one read or mixed with the CPU's fails."""
    model = io.load(DATA / name)
    network = Network(model.proto).to("meta")
    here = {s.name: torch.from_numpy(fed(model)[s.name]) for s in model.inputs}
    made = network({n: t if t.ndim == 0 else t.to("meta") for n, t in here.items()})
    assert {y.device.type for y in made} == {"meta"}


def optimized(name, folder, ratio="0.5c", form="cp3"):
    output = folder / f"{Path(name).stem}-cp.onnx"
    command = ["optimize", DATA / name, "-o", output, "--form", form, "--rank", f"*={ratio}"]
    command += ["--iterations", 8, "--threads", 1, "--jobs", 2]
    for fed_name, shape in MODELS[name].items():
        command += ["--input-shape", f"{fed_name}:{'x'.join(map(str, shape))}"]
    ended = CliRunner().invoke(app, list(map(str, command)))
    assert ended.exit_code in (0, 1), ended.output
    return output


@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNTOUCHED])
def test_a_rewritten_model_in_torch_is_too(name, tmp_path):
    assert parity(optimized(name, tmp_path)) >= 0


def test_every_weight_of_a_rewritten_resnet_has_a_gradient(tmp_path):
    path = optimized("cifar10/resnet20.onnx", tmp_path)
    model = io.load(path)
    network = Network(model.proto)
    (y,) = network({n: torch.from_numpy(a) for n, a in fed(model).items()})
    y.square().sum().backward()
    trained = {n: w.grad for n, w in network.weights().items() if w.requires_grad}
    assert len(trained) > 59  # the original's
    for name, gradient in trained.items():
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().sum() > 0, name
