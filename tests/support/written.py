"""Models as `optimize` writes them, with chains of random factors: no fit, no clock."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from typer.testing import CliRunner

from onnxcp.chain import Chain, with_bias
from onnxcp.cli import app
from onnxcp.forms import FORMS
from onnxcp.forms.grouped import drawn, largest_rank
from onnxcp.graph import io, provenance, sites
from onnxcp.graph.shapes import infer
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import rewrite
from onnxcp.plan import Choice

RANK = 4
NAMES = {np.float16: "float16", np.float32: "float", np.float64: "double"}


def model(
    path: Path,
    nodes: str,
    tensors: Mapping[str, np.ndarray],
    interface: str = "float[N,4,9,8] x) => (float[N,a,b,c] y",
    *,
    opset: int = 13,
    ir: int = 8,
    dtype: type = np.float32,
    functions: str = "",
) -> Path:
    """A model file of nodes as ONNX text, and the tensors it stores."""
    made = onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["" : {opset}, "local" : 1]> '
        f"g ({interface.replace('float', NAMES[dtype])}) {{ {nodes} }} {functions}"
    )
    for name, values in tensors.items():
        kind = values.dtype if values.dtype.kind in "ib" else dtype
        made.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(kind), name))
    if ir < 4:
        made.graph.input.extend(
            onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in made.graph.initializer
        )
    path.write_bytes(made.SerializeToString())
    return path


def chain(site: Site, form: str, bias: np.ndarray | None = None, rank: int = RANK) -> Chain:
    """A chain of random factors for a site."""
    rng = np.random.default_rng(len(site.name))
    total = rank_of(site, form, rank)
    made = drawn(FORMS[form], site.shape, site.group, total, site.geometry, rng)
    return with_bias(made, bias)


def rank_of(site: Site, form: str, rank: int = RANK) -> int:
    """A rank for every group, as far as it has a use."""
    return min(rank * site.group, largest_rank(FORMS[form], site.shape, site.group))


def write(
    reference: Path,
    output: Path,
    forms: Mapping[str, str],
    shape: tuple[int, ...] = (1, 4, 9, 8),
    bias: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """The reference with chains of the named forms in place of the named sites."""
    loaded = io.load(reference)
    found, _ = sites.find(loaded.proto, infer(loaded.proto, {"x": shape}))
    chosen = {s.name: s for s in found if s.name in forms}
    assert set(chosen) == set(forms)
    chains = {n: chain(s, forms[n], (bias or {}).get(n)) for n, s in chosen.items()}
    records = {
        n: provenance.record(Choice(forms[n], rank_of(s, forms[n])), chains[n], s.kernel)
        for n, s in chosen.items()
    }
    noted = provenance.entries(loaded.sha256, provenance.read(loaded.proto), records)
    made = rewrite(loaded.proto, chains, found, metadata=noted, external=loaded.external)
    io.save(made.proto, output, made.external)
    return output


def weight(*shape: int) -> np.ndarray:
    """A weight whose outputs are about as large as its inputs."""
    rng = np.random.default_rng(list(shape))
    made: np.ndarray = rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
    return made


def low_rank(seed, rank=8, noise=0.004):
    """A 64×64×1×1 weight that is nearly of some rank."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((64, rank)) @ rng.standard_normal((rank, 64)) / np.sqrt(64 * rank)
    return (made + noise * rng.standard_normal((64, 64)))[:, :, None, None]


def edited(path: Path, change) -> Path:
    """The file after `change(model)`, external data still beside it."""
    loaded = io.load(path)
    change(loaded.proto)
    io.save(loaded.proto, path, loaded.external)
    return path


def tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in proto.graph.initializer if t.name == name)


def node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in proto.graph.node if n.name == name)


def change_values(proto: onnx.ModelProto, name: str, change) -> None:
    """A stored tensor after `change(values)`."""
    stored = tensor(proto, name)
    values = change(onnx.numpy_helper.to_array(stored).copy())
    stored.CopyFrom(onnx.numpy_helper.from_array(np.array(values, order="C"), name))


def verify(*arguments):
    """Run the command; exit code, and stdout with its line breaks taken out."""
    ended = CliRunner().invoke(app, ["verify", *map(str, arguments)], env={"COLUMNS": "80"})
    assert ended.exit_code in (0, 1), ended.output
    return ended.exit_code, " ".join(ended.stdout.split())
