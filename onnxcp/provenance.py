"""What a model says of the chains in it: metadata that `optimize` writes and `verify` reads.

Whatever changes a chain's weights later must write the entry anew with `entries`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import onnx

from onnxcp.conv import Chain, Stage
from onnxcp.plan import Choice
from onnxcp.sites import replaced_before

OURS = "onnxcp."  # what our keys begin with
SOURCES = "onnxcp.source_sha256"  # of every model this one was made of, the first one first
CHAINS = "onnxcp.chains"


@dataclass(frozen=True, slots=True)
class Record:
    """A chain as it was written: `stages` are roles with the hash of what they store."""

    form: str
    rank: int
    stages: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a model's metadata tells, if onnxcp wrote it (`is_ours`). `chains` is None where that
    entry is missing or damaged."""

    is_ours: bool = False
    sites: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    chains: Mapping[str, Record] | None = field(default_factory=dict)


def record(choice: Choice, chain: Chain, dtype: np.dtype) -> Record:
    """What is noted of a chain whose weights are stored in `dtype`."""
    return Record(choice.form, choice.rank, tuple((s.role, digest(s, dtype)) for s in chain))


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
        CHAINS: json.dumps({name: asdict(row) for name, row in known.items()}, sort_keys=True),
    }


def read(proto: onnx.ModelProto) -> Provenance:
    """What the metadata of a model tells of how it was made."""
    found = {p.key: p.value for p in proto.metadata_props}
    if not any(key.startswith(OURS) for key in found):
        return Provenance()
    sources = tuple(found.get(SOURCES, "").splitlines())
    return Provenance(True, replaced_before(proto), sources, _chains(found.get(CHAINS, "")))


def _chains(text: str) -> dict[str, Record] | None:
    try:
        return {
            str(name): Record(
                str(row["form"]),
                int(row["rank"]),
                tuple((str(role), str(sha256)) for role, sha256 in row["stages"]),
            )
            for name, row in json.loads(text).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
