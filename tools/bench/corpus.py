"""Every model at hand through the graph pass: all eligible layers replaced at a small rank.

The corpus is ONNX's own node tests with Conv, Gemm or MatMul, its converted and simple models,
the networks of `light`, and all of the real models. Each is inspected, rewritten, checked by
`verify` (equal to the original with the kernels that the chains stand for), and, where it is
small, run on ONNX's reference evaluator against ONNX Runtime. Times are those of
`tests/support/quiet.py`. One JSON: tried, rewritten, left alone with the reasons counted, failed.
"""

import argparse
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from damaged_files import ROOT, called
from light import LIGHT, light
from networks import DATA

LAYERS = ("Conv", "Gemm", "MatMul")
SMALL = 2_000_000  # bytes of a model that the reference evaluator takes too
FREE = {1: 1, 2: 3}  # what a free dimension becomes by its place; others SIDE
SIDE = 64
RANK = 2
ROUNDING = 1e-3  # relative L2 between two evaluators
Source = tuple[str, Path]


def node_tests(folder: Path) -> Iterator[Source]:
    """ONNX's node tests that have a layer in them, written as files."""
    from onnx.backend.test.case.node import collect_testcases

    named = {case.name: case for case in collect_testcases(None)}
    for name, case in sorted(named.items()):
        if case.model is None or not _has_layer(case.model):
            continue
        for end, model in (("", case.model), ("_stored", _stored(case))):
            path = folder / f"{name}{end}.onnx"
            onnx.save(model, path)
            yield "node", path


def _stored(case: Any) -> onnx.ModelProto:
    """A node test with all its inputs but the first stored in the model."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    (values, _), *_ = case.data_sets
    for value, array in list(zip(model.graph.input, values, strict=True))[1:]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), value.name))
        model.graph.input.remove(value)
    return model


def converted(folder: Path) -> Iterator[Source]:
    """The models that ONNX keeps as files for its tests."""
    home = LIGHT.parent
    for path in sorted(home.glob("*/*/model.onnx")):
        if path.parts[-3] in ("simple", "pytorch-converted", "pytorch-operator"):
            if not _has_layer(onnx.load(path)):
                continue
            copy = folder / f"{path.parts[-3]}-{path.parent.name}.onnx"
            shutil.copyfile(path, copy)
            yield path.parts[-3], copy


def lights(folder: Path) -> Iterator[Source]:
    """Well-known networks with random weights."""
    for path in sorted(LIGHT.glob("light_*.onnx")):
        target = folder / path.name
        onnx.save(light(path.stem.removeprefix("light_"), 1), target)
        yield "light", target


def real(data: Path) -> Iterator[Source]:
    for path in sorted(data.glob("*/*.onnx")):
        yield "real", path


def _has_layer(model: onnx.ModelProto) -> bool:
    return any(node.op_type in LAYERS for node in model.graph.node)


def shapes_of(path: Path) -> list[str]:
    """A shape for every input with free dimensions beside the batch."""
    model = onnx.load(path, load_external_data=False)
    stored = {t.name for t in model.graph.initializer}
    options = []
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in stored or all(d.HasField("dim_value") for d in list(dims)[1:]):
            continue
        sizes = [
            d.dim_value if d.HasField("dim_value") else FREE.get(place, SIDE)
            for place, d in enumerate(dims, 1)
        ]
        options += ["--input-shape", f"{value.name}:{'x'.join(map(str, sizes))}"]
    return options


def tried(path: Path, folder: Path) -> dict[str, Any]:
    """What becomes of one model."""
    output, shapes = folder / "out.onnx", " ".join(shapes_of(path))
    code, text = called(f"inspect {path} --json {shapes}", folder)
    if code != 0:
        return _ended("refused" if code in (2, 3) else "failed", text)
    rows = json.loads(text[text.index("{") : text.rindex("}") + 1])["layers"]
    reasons = Counter(row["reason"] for row in rows)
    forced = f"optimize {path} -o {output} --rank *={RANK} --no-cache --overwrite {shapes}"
    code, text = called(forced, folder)
    if code != 0:
        outcome = "left alone" if code == 1 else "refused" if code in (2, 3) else "failed"
        return {**_ended(outcome, text), "reasons": reasons}
    code, text = called(f"verify {path} {output} --require-surgery {shapes}", folder)
    if code != 0:
        return {**_ended("failed", text), "reasons": reasons}
    apart = _apart(output) if path.stat().st_size < SMALL else None
    if apart is not None and apart >= ROUNDING and (_apart(path) or 0) >= ROUNDING:
        apart = None  # the two do not agree on the original either, so they judge nothing
    good = apart is None or apart < ROUNDING
    return {"outcome": "rewritten" if good else "failed", "apart": apart, "reasons": reasons}


def _ended(outcome: str, text: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.strip()]
    return {"outcome": outcome, "said": (lines[-1] if lines else "")[:300]}


def _apart(path: Path) -> float | None:
    """Relative L2 between ONNX's reference evaluator and ONNX Runtime; None where the former
    lacks an operator."""
    from onnx.reference import ReferenceEvaluator

    from onnxcp.data.roles import Sources, prepare
    from onnxcp.graph import io
    from onnxcp.runtime.providers import Target
    from onnxcp.runtime.sessions import open_runner

    given = Sources(input_shape=tuple(shapes_of(path)[1::2]))
    feeds = prepare(io.load(path).inputs, given).timed_feeds
    mine = open_runner(path, Target.named("cpu", 1))(feeds)
    try:
        theirs = list(ReferenceEvaluator(str(path)).run(None, dict(feeds)))
    except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError):
        return None
    pairs = [
        (np.asarray(a, float), np.asarray(b, float)) for a, b in zip(mine, theirs, strict=True)
    ]
    return max(
        float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12)) for a, b in pairs
    )


def corpus(kinds: Sequence[str], data: Path, folder: Path) -> Iterator[Source]:
    makers = {
        "node": lambda: node_tests(folder),
        "converted": lambda: converted(folder),
        "light": lambda: lights(folder),
        "real": lambda: real(data),
    }
    for kind in kinds:
        yield from makers[kind]()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = ("node", "converted", "light", "real")
    parser.add_argument("--kind", action="append", choices=kinds)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    import pytest

    sys.path.insert(0, str(ROOT / "tests/support"))
    importlib.import_module("quiet").install(pytest.MonkeyPatch())
    rows, reasons, begun = list[dict[str, Any]](), Counter[str](), time.perf_counter()
    with tempfile.TemporaryDirectory() as text:
        for kind, path in corpus(options.kind or kinds, options.data, Path(text)):
            started = time.perf_counter()
            row = tried(path, Path(text))
            reasons.update(row.pop("reasons", {}))
            seconds = round(time.perf_counter() - started, 1)
            rows.append({"kind": kind, "model": path.stem, **row, "seconds": seconds})
            print(rows[-1], file=sys.stderr, flush=True)
    outcomes = Counter(row["outcome"] for row in rows)
    document = {
        "tried": len(rows),
        "outcomes": outcomes,
        "by_kind": {
            kind: Counter(r["outcome"] for r in rows if r["kind"] == kind)
            for kind in dict.fromkeys(r["kind"] for r in rows)
        },
        "layers": reasons,
        "seconds": round(time.perf_counter() - begun, 1),
        "models": rows,
    }
    print(json.dumps(document, indent=2))
    return int(outcomes["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
