"""Static int8 of tiny models and of the bundled one; the slow part, of real ones."""

import hashlib
import logging
import os
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from int8_machine import exact
from int8_models import (
    FREE,
    NODES,
    TARGET,
    TENSORS,
    found,
    in_float,
    int8,
    kinds,
    outputs,
    parameters,
    plainly,
    relative,
    samples,
    stored,
    tiny,
)
from typer.testing import CliRunner
from written import model, weight, write

from onnxcp.cli import app
from onnxcp.data import sources as data
from onnxcp.data.roles import Sources, prepare
from onnxcp.data.samples import Batching
from onnxcp.errors import DataError, ModelError, UsageError
from onnxcp.graph import io
from onnxcp.measure.accuracy import Evaluation
from onnxcp.measure.metric_table import METRICS
from onnxcp.quantization import precision, qdq
from onnxcp.quantization.scheme import METHODS, Scheme
from onnxcp.quantization.static import FEWEST, quantized_for_time
from onnxcp.quantization.static import prepare as prepare_int8
from onnxcp.runtime.sessions import open_runner
from onnxcp.verification.saturation import bounded

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("ONNXCP_DATA", ROOT / "../shared/data")).resolve()
DIGITS = ROOT / "models/digits.onnx"


def test_the_int8_model_computes_nearly_the_same(tmp_path):
    proto, feeds = tiny(tmp_path), samples().read(0, 8)
    assert relative(outputs(proto, feeds), outputs(int8(proto), feeds)) < 0.03


@pytest.mark.parametrize("method", METHODS)
def test_digits_keep_their_accuracy(method):
    loaded = io.load(DIGITS)
    inputs = prepare(loaded.inputs, Sources(data=(str(ROOT / "models/digits.npz"),)))
    made = prepare_int8(
        loaded.proto, inputs.calibration, FREE, exact(Scheme(method=method))
    ).quantized()
    onnx.checker.check_model(made, full_check=True)
    judge = Evaluation(
        open_runner(DIGITS, TARGET), inputs.samples, METRICS["top1"], inputs.batching
    )
    assert judge.measure(open_runner(made.SerializeToString(), TARGET)).drop <= 0.01


def test_every_convolution_reads_what_was_quantized_and_batch_norm_is_folded(tmp_path):
    made = int8(tiny(tmp_path))
    assert in_float(made) == set()
    assert "BatchNormalization" not in kinds(made)
    assert kinds(made)["QuantizeLinear"] == 4  # x, c, d, y
    assert {n.name for n in made.graph.node if n.op_type == "Conv"} == {"first", "second"}


def test_activations_are_unsigned_and_weights_signed_by_channel(tmp_path):
    made = int8(tiny(tmp_path))
    node = found(made, "second")
    scale, zero = parameters(made, node.input[0])
    assert zero.dtype == np.uint8
    assert scale.shape == ()
    scale, zero = parameters(made, node.input[1])
    assert zero.dtype == np.int8
    assert scale.shape == (4,)


def test_another_scheme_is_kept_to(tmp_path):
    made = int8(tiny(tmp_path), Scheme(activations="int8", per_channel=False, reduce_range=True))
    node = found(made, "second")
    assert parameters(made, node.input[0])[1].dtype == np.int8
    scale, _ = parameters(made, node.input[1])
    assert scale.size == 1
    weights = next(v for v in stored(made).values() if v.shape == (4, 6, 3, 3))
    assert np.abs(weights.astype(int)).max() <= 64


def test_a_clipping_method_gives_smaller_steps_where_there_is_an_outlier(tmp_path):
    rows = np.random.default_rng(0).standard_normal((FEWEST, 4, 9, 8)).astype(np.float32)
    rows[0, 0, 0, 0] = 1000
    given, proto = samples(values=rows), tiny(tmp_path)
    steps = {}
    for method in METHODS:
        made = int8(proto, Scheme(method=method, percentile=99.9), given)
        steps[method] = parameters(made, found(made, "first").input[0])[0].item()
    assert steps["percentile"] < steps["minmax"] / 10
    assert steps["mse"] < steps["minmax"]


def test_nodes_are_left_in_float_by_glob(tmp_path):
    proto = tiny(tmp_path)
    assert in_float(int8(proto, Scheme(floats=("sec*",)))) == {"second"}
    assert in_float(int8(proto, Scheme(floats=("f*", "join")))) == {"first"}


def test_nodes_without_names_are_told_apart(tmp_path):
    nodes = NODES.replace("[first]", "").replace("[second]", "")
    made = int8(tiny(tmp_path, nodes), Scheme(floats=("Conv:d",)))
    assert in_float(made) == {"Conv:d"}


def test_a_product_is_left_in_float_by_the_name_it_had_before_its_add_joined_it(tmp_path):
    nodes = "[product] p = MatMul (x, w) [bias] y = Add (p, b)"
    tensors = {"w": weight(6, 5), "b": weight(5)}
    proto = tiny(tmp_path, f"{nodes} [other] z = MatMul (y, v)", tensors | {"v": weight(5, 3)},
                 interface="float[N,6] x) => (float[N,3] z")  # fmt: skip
    made = int8(proto, Scheme(floats=("product",)), samples(shape=(6,)))
    assert (6, 5) in {v.shape for v in stored(made).values() if v.dtype == np.float32}
    assert (5, 3) in {v.shape for v in stored(made).values() if v.dtype == np.int8}


def test_a_bias_stored_as_a_row_is_quantized(tmp_path):
    nodes = "p = MatMul (x, w) y = Add (p, b)"
    proto = tiny(tmp_path, nodes, {"w": weight(6, 5), "b": weight(1, 5)},
                 interface="float[1,6] x) => (float[1,5] y")  # fmt: skip
    given = samples(shape=(6,))
    made = int8(proto, given=given, batching=Batching(1, fixed=True))
    feeds = given.read(0, 1)
    assert relative(outputs(proto, feeds), outputs(made, feeds)) < 0.05


def test_chains_become_int8_and_their_windows_can_stay_in_float(tmp_path):
    proto = io.load(written_chain(tmp_path)).proto
    chain = {n.name for n in proto.graph.node if n.name.startswith("second/cp/")}
    assert len(chain) == 3
    made = int8(proto)
    assert chain <= {n.name for n in made.graph.node if n.op_type == "Conv"}
    assert in_float(made) == set()
    assert in_float(int8(proto, Scheme(floats=("*/cp/window",)))) == {"second/cp/window"}


def test_the_runtime_keeps_in_float_what_is_left_in_float(tmp_path):
    proto = io.load(written_chain(tmp_path)).proto
    for floats, integers in ((), 4), (("second/cp/window",), 3), (("second/cp/*",), 1):
        made = int8(proto, Scheme(floats=floats))
        (tmp_path / "int8.onnx").write_bytes(made.SerializeToString())
        assert kernels(tmp_path)["QLinearConv"] == integers, floats
        shields = [n for n in made.graph.node if n.op_type == "LeakyRelu"]
        assert [n.name for n in shields] == [f"{name}/float" for name in floats if "*" not in name]


def test_a_node_in_float_between_int8_ones_computes_what_it_did(tmp_path):
    proto, feeds = tiny(tmp_path), samples().read(0, 1)
    made, bare = (int8(proto, exact(Scheme(floats=("second",)))) for _ in range(2))
    (place,) = [i for i, n in enumerate(bare.graph.node) if n.op_type == "LeakyRelu"]
    bare.graph.node[place].op_type = "Identity"
    del bare.graph.node[place].attribute[:]
    assert np.array_equal(plainly(made, feeds), plainly(bare, feeds))
    step = parameters(made, "y")[0].item()
    steps = np.rint(np.abs(plainly(bare, feeds) - outputs(made, feeds)) / step)
    assert steps.max() <= 1  # floats that are added in another order round otherwise at a half
    assert np.mean(steps) < 0.01  # which few values lie on


@pytest.mark.parametrize("between", ["", "[r] {} = Relu (b)", "[r] {} = Clip (b, low, high)"])
def test_the_runtime_keeps_in_float_what_relu_or_clip_follow(tmp_path, between):
    nodes = f"""
        [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
        [second] {"b" if between else "c"} = Conv (a, w2)
        {between.format("c")}
        [third] y = Conv <pads = [1, 1, 1, 1]> (c, w3)
    """
    ends = {"low": np.array(0.0), "high": np.array(6.0)} if "Clip" in between else {}
    weights = {"w1": weight(6, 4, 3, 3), "w2": weight(5, 6, 1, 1), "w3": weight(4, 5, 3, 3)}
    made = int8(tiny(tmp_path, nodes, {**weights, **ends}), Scheme(floats=("second",)))
    (tmp_path / "int8.onnx").write_bytes(made.SerializeToString())
    assert "second/float" in {n.name for n in made.graph.node}
    ran = kernels(tmp_path)
    assert (ran["QLinearConv"], ran["Conv"] + ran["FusedConv"]) == (2, 1)


def kernels(folder):
    """What the runtime makes of a model: its nodes by type."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    provider = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(folder / "int8.onnx", options, providers=provider)
    return Counter(n.op_type for n in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("floats", [(), ("second/cp/window",), ("second/cp/*",), ("*",)])
def test_a_part_that_is_timed_stands_between_int8_borders(tmp_path, floats):
    proto, feeds = io.load(written_chain(tmp_path)).proto, samples().read(0, 1)
    timed = quantized_for_time(proto.SerializeToString(), feeds, "here", floats, is_part=True)
    made = onnx.load_from_string(timed)
    fed = {n.op_type for n in made.graph.node if "x" in n.input}
    given = {n.op_type for n in made.graph.node if "y" in n.output}
    assert (fed, given) == ({"QuantizeLinear"}, {"DequantizeLinear"})
    named = {n.name for n in proto.graph.node if n.op_type == "Conv"}
    assert in_float(made) == {n for n in named if any(fnmatchcase(n, g) for g in floats)}


def written_chain(tmp_path):
    reference = model(tmp_path / "reference.onnx", NODES, TENSORS)
    return write(reference, tmp_path / "chained.onnx", {"second": "cp3"})


def test_what_optimize_writes_becomes_int8(tmp_path):
    output = tmp_path / "fast.onnx"
    command = [
        "optimize",
        str(DIGITS),
        "-o",
        str(output),
        "--rank",
        "block/conv?=0.5c",
        "--form",
        "cp3",
    ]
    command += ["--iterations", "8", "--threads", "1", "--jobs", "1", "--quiet"]
    assert CliRunner().invoke(app, command).exit_code == 0
    loaded = io.load(output)
    inputs = prepare(loaded.inputs, Sources(data=(str(ROOT / "models/digits.npz"),)))
    made = prepare_int8(loaded.proto, inputs.calibration, FREE, exact()).quantized()
    assert in_float(made) == set()
    feeds = inputs.samples.read(0, 64)
    same = outputs(loaded.proto, feeds).argmax(1) == outputs(made, feeds).argmax(1)
    assert same.mean() > 0.95


def test_metadata_names_and_what_the_model_says_of_itself_survive(tmp_path):
    proto = io.load(written_chain(tmp_path)).proto
    proto.doc_string, proto.producer_name = "ours", "somebody"
    made = int8(proto)
    assert list(made.metadata_props) == list(proto.metadata_props)
    assert any(p.key == "onnxcp.chains" for p in made.metadata_props)
    assert (made.doc_string, made.producer_name) == ("ours", "somebody")
    assert list(made.graph.input) == list(proto.graph.input)
    assert [o.name for o in made.graph.output] == ["y"]
    assert [o.domain for o in made.opset_import] == [""]


def test_the_model_given_is_not_changed(tmp_path):
    proto = tiny(tmp_path)
    before = proto.SerializeToString(deterministic=True)
    int8(proto, Scheme(floats=("first",)))
    assert proto.SerializeToString(deterministic=True) == before


def test_the_same_input_gives_the_same_bytes_in_another_process(tmp_path):
    proto = io.load(written_chain(tmp_path)).proto
    here = hashlib.sha256(int8(proto).SerializeToString()).hexdigest()
    code = (
        "import sys, hashlib; from pathlib import Path;"
        "sys.path[:0] = ['tests/support', 'tests/quantization'];"
        "from onnxcp.graph import io; from int8_models import int8;"
        "made = int8(io.load(Path(sys.argv[1])).proto);"
        "print(hashlib.sha256(made.SerializeToString()).hexdigest())"
    )
    for seed in "12":
        command = [sys.executable, "-c", code, str(tmp_path / "chained.onnx")]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        assert ended.stdout.strip() == here, ended.stderr


def test_nothing_is_printed_and_logging_is_left_as_it_was(tmp_path, capfd, caplog):
    """Of a bias that is computed the quantizer would talk."""
    nodes = "b = ReduceMax <axes = [0], keepdims = 0> (x) y = Gemm (x, w, b)"
    interface = "float[N,5] x) => (float[N,5] y"
    proto = tiny(tmp_path, nodes, {"w": weight(5, 5)}, interface=interface)
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.level)
    int8(proto, given=samples(shape=(5,)))
    assert (list(root.handlers), list(root.filters), root.level) == before
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_only_the_quantizers_own_messages_are_dropped(caplog):
    with qdq._silenced():
        logging.warning("ours")
    assert caplog.messages == ["ours"]


def test_the_package_and_this_module_load_no_runtime():
    code = "import sys, onnxcp, onnxcp.quantization.static; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("method", METHODS)
def test_constant_activations_break_nothing(tmp_path, method):
    tensors = {**TENSORS, "w1": np.zeros((6, 4, 3, 3)), "bias": np.zeros(6)}
    nodes = NODES.replace("Add (d, x)", "Relu (d)")
    proto, given = tiny(tmp_path, nodes, tensors), samples()
    made = int8(proto, exact(Scheme(method=method)), given)
    feeds = given.read(0, 1)
    np.testing.assert_allclose(outputs(made, feeds), outputs(proto, feeds), atol=0.02)


def test_a_fixed_batch_is_filled_up(tmp_path):
    proto = tiny(tmp_path, interface="float[5,4,9,8] x) => (float[5,a,b,c] y")
    made = int8(proto, given=samples(18), batching=Batching(5, fixed=True))
    assert in_float(made) == set()


def test_initializers_among_the_inputs_become_weights(tmp_path):
    made = int8(tiny(tmp_path, ir=3, opset=8), raise_opset=True)
    assert [i.name for i in made.graph.input] == ["x"]
    assert in_float(made) == set()
    assert "BatchNormalization" not in kinds(made)


def test_external_data_comes_inside(tmp_path):
    path = tmp_path / "out.onnx"
    io.save(tiny(tmp_path), path, frozenset({"w1", "w2"}))
    assert io.data_file(path).exists()
    made = int8(io.load(path).proto)
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in made.graph.initializer)
    assert in_float(made) == set()


def test_an_old_opset_is_raised_only_with_consent(tmp_path):
    proto = tiny(tmp_path, opset=10)
    with pytest.raises(ModelError, match=r"model\.onnx: opset 10 has no quantization by channel"):
        int8(proto, where="model.onnx")
    made = int8(proto, raise_opset=True)
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 13)]
    feeds = samples().read(0, 8)
    assert relative(outputs(proto, feeds), outputs(made, feeds)) < 0.03


def test_an_opset_that_can_not_be_raised_is_refused(tmp_path):
    proto = tiny(tmp_path, opset=10)
    found(proto, "relu").op_type = "Strange"
    with pytest.raises(ModelError, match="cannot raise its opset to 13: it does not know Strange"):
        int8(proto, raise_opset=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (samples(0), "no samples to take the ranges"),
        (samples(FEWEST - 1), r"15 calibration samples in made\.npz are too few"),
        (samples(values=np.nan), "'x' is NaN or infinite"),
        (samples(values=np.arange(8) * 4e37), "'.*' is NaN or infinite"),
    ],
    ids=["none", "few", "NaN", "infinite"],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_samples_that_tell_nothing_are_refused(tmp_path, given, message):
    tensors = {**TENSORS, "w1": np.full((6, 4, 3, 3), 100.0)}
    with pytest.raises(DataError, match=message):
        int8(tiny(tmp_path, tensors=tensors), given=given)


def test_no_samples_at_all_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no samples to take the ranges .* give calibration"):
        prepare_int8(tiny(tmp_path), None, FREE, Scheme())


def test_a_glob_that_names_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no node is named 'third'"):
        int8(tiny(tmp_path), Scheme(floats=("third",)))


def test_a_model_with_nothing_for_int8_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no Conv, Gemm or MatMul of its main graph is left"):
        int8(tiny(tmp_path, "y = Relu (x)", {}))
    with pytest.raises(ModelError, match="is left for int8"):
        int8(tiny(tmp_path), Scheme(floats=("*",)))


def test_a_float16_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"a float16 model .*: int8 is made from float32"):
        int8(tiny(tmp_path, dtype=np.float16))


def test_a_model_too_large_for_one_message_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "LARGEST_MESSAGE", 100)
    with pytest.raises(ModelError, match="over 2 GiB"):
        int8(tiny(tmp_path))


def test_a_model_that_the_runtime_refuses_is_an_error_of_ours(tmp_path):
    proto = tiny(tmp_path)
    found(proto, "relu").op_type = "Strange"
    with pytest.raises(ModelError, match=r"ONNX Runtime reports: .*Strange"):
        int8(proto)


INTEGERS = {
    "a QDQ model": (
        """q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
        e = DequantizeLinear (v, s, z) y = Conv (d, e)""",
        r"quantized already \(2 DequantizeLinear, 1 QuantizeLinear\)",
    ),
    "a part in QDQ": (
        """q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
        a = Conv (d, w) y = Conv (a, w)""",
        r"quantized in part \(1 DequantizeLinear, 1 QuantizeLinear; 2 Conv",
    ),
    "QLinearConv": (
        """q = QuantizeLinear (x, s, z) a = QLinearConv (q, s, z, v, s, z, s, z)
        y = DequantizeLinear (a, s, z)""",
        r"quantized already \(1 DequantizeLinear, 1 QLinearConv, 1 QuantizeLinear\)",
    ),
    "ConvInteger": (
        """q, qs, qz = DynamicQuantizeLinear (x) a = ConvInteger (q, v, qz)
        y = Cast <to = 1> (a)""",
        r"quantized already \(1 ConvInteger, 1 DynamicQuantizeLinear\)",
    ),
    "MatMulInteger beside a Conv": (
        """q, qs, qz = DynamicQuantizeLinear (x) a = MatMulInteger (q, v, qz)
        b = Cast <to = 1> (a) y = Conv (b, w)""",
        r"quantized in part \(1 DynamicQuantizeLinear, 1 MatMulInteger; 1 Conv",
    ),
    "a branch": (
        """c = Constant <value_int = 1> () t = Cast <to = 9> (c)
        y = If (t) <then_branch = one () => (float[N,4,9,8] i) {
            q = QuantizeLinear (x, s, z) i = DequantizeLinear (q, s, z) },
        else_branch = two () => (float[N,4,9,8] j) { j = Relu (x) }>""",
        "quantized already",
    ),
}


@pytest.mark.parametrize("row", INTEGERS.values(), ids=INTEGERS)
def test_a_quantized_model_is_left_alone_with_the_reason(row):
    nodes, message = row
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> '
        f"g (float[N,4,9,8] x, float s, uint8 z, uint8[4,4,1,1] v, float[4,4,1,1] w) "
        f"=> (float[N,a,b,c] y) {{ {nodes} }}"
    )
    with pytest.raises(ModelError, match=message):
        int8(proto)


def test_our_own_result_is_quantized_already(tmp_path):
    proto = tiny(tmp_path)
    assert precision.quantized_already(proto) is None
    assert precision.quantized_already(int8(proto)).startswith("quantized already (")
    part = precision.quantized_already(int8(proto, Scheme(floats=("first",))))
    assert part.startswith("quantized in part (")


def real_models():
    return sorted(str(p.relative_to(DATA)) for p in DATA.rglob("*.onnx"))


REFUSED = {
    "odd/silero_vad.onnx": "no Conv, Gemm or MatMul of its main graph",
    "odd/winml_SqueezeNet_fp16.onnx": "a float16 model",
    "odd/winml_candy.onnx": "it does not know ImageScaler",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", real_models())
def test_a_real_model_becomes_int8_or_is_refused_with_the_reason(name, capfd):
    loaded = io.load(DATA / name)
    capfd.readouterr()  # the checker prints of experimental operators
    shapes = {s.name: concrete(s.dims) for s in loaded.inputs}
    given = data.synthetic(loaded.inputs, shapes, FEWEST, 0)
    batching = Batching(next(s[0] for s in shapes.values() if s), fixed=True)
    if name in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[name]):
            prepare_int8(loaded.proto, given, batching, exact(), where=name, raise_opset=True)
        return
    ready = prepare_int8(loaded.proto, given, batching, exact(), where=name, raise_opset=True)
    made = ready.quantized()
    feeds = given.read(0, 1)
    before, after = outputs(loaded.proto, feeds), outputs(made, feeds)
    step = np.sqrt(before.size) / 255 if is_score(loaded.proto) else 0.0
    assert np.linalg.norm(after - before) <= max(0.1 * np.linalg.norm(before), step)
    assert capfd.readouterr() == ("", "")


def is_score(proto):
    """Whether the first output is bounded: int8 can be a step of its range off where it is 0."""
    return proto.graph.output[0].name in bounded(proto.graph)


def concrete(dims):
    """The first free size is the batch, the others images of 64×64, or volumes of 16×16×16."""
    side = 64 if len(dims) <= 4 else 16
    return tuple(d if isinstance(d, int) else (side if k else 1) for k, d in enumerate(dims))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real models at {DATA}; set ONNXCP_DATA")
@pytest.mark.parametrize("method", METHODS)
def test_resnet20_loses_less_than_a_point(method):
    path = DATA / "cifar10/resnet20.onnx"
    loaded = io.load(path)
    sources = Sources(
        data=(f"{DATA}/cifar10/test.npz",),
        calibration=(f"{DATA}/cifar10/calibration.npz[:128]",),
        preprocess="cifar10",
        samples=1000,
    )
    inputs = prepare(loaded.inputs, sources)
    made = prepare_int8(
        loaded.proto, inputs.calibration, FREE, exact(Scheme(method=method))
    ).quantized()
    judge = Evaluation(open_runner(path, TARGET), inputs.samples, METRICS["top1"], inputs.batching)
    assert judge.measure(open_runner(made.SerializeToString(), TARGET)).drop < 0.01
