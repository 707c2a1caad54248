"""Training for int8: what it brings down, what it keeps, and that its result is what it saw."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from int8_machine import exact
from int8_models import DIGITS, FREE, NODES, TENSORS, outputs, samples, stored
from written import model as written_model
from written import write

torch = pytest.importorskip("torch")

from onnxcp.data.roles import Sources
from onnxcp.data.roles import prepare as inputs_of
from onnxcp.data.samples import Batching
from onnxcp.errors import DataError, ParityError, UsageError, WorkError
from onnxcp.graph import io
from onnxcp.measure.accuracy import Evaluation
from onnxcp.measure.metric_table import METRICS
from onnxcp.quantization import static
from onnxcp.quantization.scheme import Scheme
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.torchgraph import parity as torch_parity
from onnxcp.torchgraph.module import Network
from onnxcp.training.fake_quant import simulated
from onnxcp.training.qat import check_steps, distill_int8
from onnxcp.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("ONNXCP_DATA", ROOT / "../shared/data")).resolve()
COARSE = Scheme(  # so that there is something to win
    per_channel=False, reduce_range=True, method="percentile", percentile=99
)
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=3e-4, weights="all")


@pytest.fixture(scope="module")
def model():
    return io.load(DIGITS)


@pytest.fixture(scope="module")
def inputs(model):
    sources = Sources(data=(str(DIGITS.with_suffix(".npz")),), trains=True)
    return inputs_of(model.inputs, sources)


@pytest.fixture(scope="module")
def ready(model, inputs):
    return static.prepare(
        model.proto, inputs.calibration, inputs.calibration_batching, COARSE
    ).corrected()


@pytest.fixture(scope="module")
def taught(model, inputs, ready):
    return distill_int8(model, ready, inputs, RECIPE)


def error(model, prepared, inputs):
    """Of the int8 model's outputs on samples that neither trained nor calibrated."""
    feeds = inputs.samples.read(0, 200)
    wanted = outputs(model.proto, feeds)
    return np.linalg.norm(outputs(prepared.quantized(), feeds) - wanted) / np.linalg.norm(wanted)


def test_the_int8_model_comes_closer_to_the_original(model, inputs, ready, taught):
    made, told = taught
    epochs = told.trained.epochs
    assert epochs[told.trained.best].held_out < 0.7 * epochs[0].held_out
    assert error(model, made, inputs) < 0.9 * error(model, ready, inputs)


def test_what_was_trained_is_what_the_int8_model_computes(inputs, ready, taught):
    made, told = taught
    feeds = inputs.samples.read(0, 32)
    network = Network(simulated(ready).graph)
    network.load({n: torch.from_numpy(w) for n, w in told.trained.weights.items()})
    found = simulated(made)
    (trained,), (anew,) = (torch_parity.outputs(n, feeds) for n in (network, Network(found.graph)))
    np.testing.assert_array_equal(trained, anew)
    assert check_steps(found, feeds) < 0.01
    (ran,) = open_runner(made.quantized().SerializeToString(), Target.named("cpu", 1))(feeds)
    assert np.linalg.norm(trained - ran) < 0.01 * np.linalg.norm(ran)


def test_only_weights_change(ready, taught):
    made, told = taught
    assert set(told.trained.weights) == set(stored(ready.folded))
    assert (made.ranges, made.nodes, made.scheme) == (ready.ranges, ready.nodes, ready.scheme)
    assert list(made.folded.graph.node) == list(ready.folded.graph.node)
    assert told.samples == {"train": 126, "held_out": 14}
    assert told.parity < 0.02


def test_the_model_prepared_is_not_changed(model, inputs, ready):
    before = ready.folded.SerializeToString(deterministic=True)
    distill_int8(model, ready, inputs, replace(RECIPE, epochs=1))
    assert ready.folded.SerializeToString(deterministic=True) == before


def test_some_weights_can_be_left_as_they_are(model, inputs, ready):
    recipe = replace(RECIPE, epochs=1, weights="block/*")
    made, told = distill_int8(model, ready, inputs, recipe)
    assert len(told.trained.weights) == 4
    before, after = stored(ready.folded), stored(made.folded)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert changed <= set(told.trained.weights)


def test_a_model_of_a_fixed_batch_is_trained(model, inputs):
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model.proto)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    one = replace(inputs, batching=Batching(4, fixed=True))
    ready = static.prepare(fixed, inputs.calibration, one.batching, COARSE).corrected()
    _, told = distill_int8(replace(model, proto=fixed), ready, one, replace(RECIPE, epochs=1))
    assert np.isfinite(told.trained.epochs[1].held_out)


def test_mixed_precision_comes_closer_too(model, inputs, ready):
    _, told = distill_int8(model, ready, inputs, replace(RECIPE, mixed_precision=True))
    assert told.trained.epochs[told.trained.best].held_out < 0.7 * told.trained.epochs[0].held_out


def test_chains_are_trained_with_what_the_replaced_layers_gave(inputs, tmp_path):
    original = io.load(written_model(tmp_path / "model.onnx", NODES, TENSORS))
    chained = io.load(write(original.path, tmp_path / "chained.onnx", {"second": "cp3"}))
    given = replace(inputs, calibration=samples(), training=samples(64), validation=samples(16))
    ready = static.prepare(chained.proto, samples(), FREE, exact()).corrected()
    recipe = replace(
        RECIPE, weights="chains", feature_weight=1.0, stability=0.1, learning_rate=0.01
    )
    _, told = distill_int8(original, ready, given, recipe)
    names = {f"second/cp/{role}.weight" for role in ("inputs", "window", "outputs")}
    biases = {"b2", "second/cp/inputs.2", "second/cp/window.2"}  # two that correct means
    assert names <= set(told.trained.weights) <= names | biases
    assert told.trained.epochs[told.trained.best].held_out < told.trained.epochs[0].held_out


def test_a_run_that_was_killed_ends_as_one_that_was_not(model, inputs, ready, taught, tmp_path):
    def dies(phase, done, total):
        if phase.startswith("train, epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill_int8(model, ready, inputs, RECIPE, folder=tmp_path, progress=dies)
    made, _ = distill_int8(model, ready, inputs, RECIPE, folder=tmp_path, resume=True)
    for name, values in stored(taught[0].folded).items():
        np.testing.assert_array_equal(stored(made.folded)[name], values)
    finer = replace(ready, scheme=exact())
    with pytest.raises(WorkError, match="other settings"):
        distill_int8(model, finer, inputs, RECIPE, folder=tmp_path, resume=True)


def poisoned(outputs, labels):
    """A loss, of this module's name in a recipe."""
    return outputs[0].sum() * torch.nan


def test_a_loss_that_is_no_number_keeps_the_weights_as_they_came(model, inputs, ready):
    recipe = replace(RECIPE, loss=f"{__name__}:poisoned")
    made, told = distill_int8(model, ready, inputs, recipe)
    assert "nan in epoch 1" in told.trained.stopped
    for name, values in stored(ready.folded).items():
        np.testing.assert_array_equal(stored(made.folded)[name], values)


def test_steps_that_leave_every_range_keep_the_weights_as_they_came(model, inputs, ready):
    recipe = replace(RECIPE, learning_rate=10.0, clip=1e6, ema=0.0)
    made, told = distill_int8(model, ready, inputs, recipe)
    assert told.trained.best == 0
    assert "<<learning_rate>>" in told.trained.stopped
    assert all(np.isfinite(values).all() for values in stored(made.folded).values())


def test_too_few_samples_are_refused(model, inputs, ready):
    with pytest.raises(UsageError, match="no samples to train on"):
        distill_int8(model, ready, replace(inputs, training=None), RECIPE)
    few = replace(inputs, training=inputs.training.first(5), validation=inputs.validation.first(5))
    with pytest.raises(DataError, match="10 samples are too few"):
        distill_int8(model, ready, few, RECIPE)


def test_weights_that_no_product_reads_are_refused(model, inputs, ready):
    with pytest.raises(UsageError, match="names no weights"):
        distill_int8(model, ready, inputs, replace(RECIPE, weights="nothing*"))


def test_a_model_that_the_runtime_computes_otherwise_is_not_trained(
    model, inputs, ready, monkeypatch
):
    from onnxcp.training import fake_quant

    monkeypatch.setitem(fake_quant.MAX_WEIGHT, "int8", (127, 127))  # 8 bits where there are 7
    with pytest.raises(ParityError, match="ONNX Runtime's int8 differs from PyTorch"):
        distill_int8(model, ready, inputs, RECIPE)


def test_the_module_loads_no_torch():
    code = "import sys, onnxcp.training.qat; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real models at {DATA}; set ONNXCP_DATA")
def test_resnet20_in_coarse_int8_gets_its_accuracy_back():
    model = io.load(DATA / "cifar10/resnet20.onnx")
    folder = DATA / "cifar10"
    sources = Sources(
        data=(f"{folder}/test.npz[:1000]",),
        calibration=(f"{folder}/calibration.npz[:128]",),
        train=(f"{folder}/train.npz[:1000]",),
        trains=True,
        preprocess="cifar10",
    )
    inputs = inputs_of(model.inputs, sources)
    ready = static.prepare(
        model.proto, inputs.calibration, inputs.calibration_batching, COARSE
    ).corrected()
    recipe = Recipe(epochs=2, learning_rate=1e-4, weights="all")
    made, told = distill_int8(model, ready, inputs, recipe)
    target = Target.named("cpu", 1)
    judge = Evaluation(
        open_runner(model.path, target), inputs.samples, METRICS["top1"], inputs.batching
    )
    before, after = (
        judge.measure(open_runner(p.quantized().SerializeToString(), target)).drop
        for p in (ready, made)
    )
    assert told.trained.best > 0
    assert after < before
