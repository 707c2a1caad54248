"""What a model says of the chains in it: metadata that `optimize` writes and `verify` reads.

Whatever changes a chain's weights later must write the entry anew with `entries`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import onnx

from onnxcp.chain import Chain, Kernel, Stage
from onnxcp.errors import MALFORMED
from onnxcp.graph.float_parts import globs
from onnxcp.graph.metadata import OURS, is_sealed
from onnxcp.graph.sites import replaced_before
from onnxcp.plan import Choice

SOURCES = "onnxcp.source_sha256"  # of every model this one was made of, the first one first
CHAINS = "onnxcp.chains"
TRAINED = "onnxcp.trained"  # hashes of tensors of the original that training changed


@dataclass(frozen=True, slots=True)
class Record:
    """A chain as it was written: `stages` are roles with the hash of what they store, `floats`
    what of it stays in float once the model becomes int8, `kernel` the hash of the kernel that it
    was fitted to; "" in what older versions wrote."""

    form: str
    rank: int
    stages: tuple[tuple[str, str], ...]
    floats: str = ""
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a model's metadata tells, if onnxcp wrote it (`is_ours`). `chains` is None where that
    entry is missing or damaged. `trained` are the hashes of what is left of the original and
    was trained. `is_sealed` tells whether the entries are as they were written, None where they
    have no seal."""

    is_ours: bool = False
    sites: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    chains: Mapping[str, Record] | None = field(default_factory=dict)
    trained: Mapping[str, str] = field(default_factory=dict)
    is_sealed: bool | None = None


def record(choice: Choice, chain: Chain, original: Kernel) -> Record:
    """What is noted of a chain in place of the `original` kernel, in whose type it is stored."""
    stages = tuple((s.role, digest(s, original.dtype)) for s in chain)
    return Record(choice.form, choice.rank, stages, choice.floats, kernel_digest(original))


def kernel_digest(values: Kernel) -> str:
    """The hash of a kernel [T, S, *window]."""
    return digest(Stage("", values), values.dtype)


def digest(stage: Stage, dtype: np.dtype) -> str:
    """The hash of a stage's weight, and of its bias if it has one of its own."""
    made = hashlib.sha256()
    for values in (stage.weight, stage.bias):
        if values is not None:
            stored = np.ascontiguousarray(values, dtype)
            made.update(f"{stored.dtype.str}{stored.shape}".encode() + stored.tobytes())
    return made.hexdigest()


def entries(source: str, made_of: Provenance, chains: Mapping[str, Record]) -> dict[str, str]:
    """Metadata of a model made of the one with hash `source`, which itself was `made_of`."""
    known = {**(made_of.chains or {}), **chains}
    return {
        SOURCES: "\n".join((*made_of.sources, source)),
        CHAINS: text(known),
    }


def read(proto: onnx.ModelProto) -> Provenance:
    """What the metadata of a model tells of how it was made."""
    found = {p.key: p.value for p in proto.metadata_props}
    if not any(key.startswith(OURS) for key in found):
        return Provenance()
    sources = tuple(found.get(SOURCES, "").splitlines())
    chains, trained = _chains(found.get(CHAINS, "")), _hashes(found.get(TRAINED, "{}"))
    sealed = is_sealed(proto)
    return Provenance(True, replaced_before(proto), sources, chains, trained, sealed)


def content(tensor: onnx.TensorProto) -> str:
    """The hash of a tensor's values, however they are stored."""
    values = onnx.numpy_helper.to_array(tensor)
    return hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes()).hexdigest()


def _hashes(text: str) -> dict[str, str]:
    try:
        return {str(name): str(sha256) for name, sha256 in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def renewed(row: Record, old: Sequence[Stage], new: Sequence[Stage]) -> Record:
    """The record of a chain whose weights changed from `old` to `new`, stage by stage. A stage
    that was not what was written keeps its hash, and stays wrong."""
    pairs = zip(row.stages, old, new, strict=True)
    return replace(row, stages=tuple((role, _renewed(sha, a, b)) for (role, sha), a, b in pairs))


def _renewed(sha256: str, old: Stage, new: Stage) -> str:
    """The hash of `new`, with or without the bias, as it was of `old`."""
    bare = replace(old, bias=None), replace(new, bias=None)
    for before, after in ((old, new), bare):
        if digest(before, before.weight.dtype) == sha256:
            return digest(after, after.weight.dtype)
    return sha256


def text(chains: Mapping[str, Record]) -> str:
    """Records as the entry `CHAINS` holds them."""
    rows = {name: asdict(row) for name, row in chains.items()}
    told = {n: {k: v for k, v in row.items() if v != ""} for n, row in rows.items()}
    return json.dumps(told, sort_keys=True)


def left_in_float(proto: onnx.ModelProto) -> list[str]:
    """Globs of the nodes that stay in float once the model becomes int8."""
    rows = (read(proto).chains or {}).items()
    return [glob for site, row in rows for glob in globs(site, row.floats, dict(row.stages))]


def _chains(text: str) -> dict[str, Record] | None:
    try:
        return {
            str(name): Record(
                str(row["form"]),
                int(row["rank"]),
                tuple((str(role), str(sha256)) for role, sha256 in row["stages"]),
                str(row.get("floats", "")),
                str(row.get("kernel", "")),
            )
            for name, row in json.loads(text).items()
        }
    except MALFORMED:
        return None
