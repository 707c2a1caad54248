"""Damaged files of every kind that onnxcp reads: does each end in a line and the right exit code?

First every command is run on undamaged files, which it must accept: what is refused as it is tells
nothing of damage. A worker process runs commands in itself, one after another, and notes the seed
before each, so that a crash or a hang is known by its seed; the next one starts a new worker. Times
are those of `tests/support/quiet.py`, so that nothing waits for a benchmark. Exit code 70, another
undocumented one, a traceback, a crash and a hang are findings; their files are kept under --keep.
One JSON.
"""

import argparse
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutations import (
    damaged_bytes,
    damaged_json,
    damaged_model,
    damaged_npz,
    damaged_table,
)

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = (0, 1, 2, 3)
HANG = 600.0  # seconds without a word
BUSY = 60.0  # seconds of the processor that one case may take
FAST = ("--threads", "1")
RUN = (*FAST, "--iterations", "8", "--jobs", "1", "--quiet")


@dataclass(frozen=True)
class Kind:
    """A kind of file: which file of a valid folder is damaged, how its fields are, and commands
    that read it, taken in turns; {} stands for the folder."""

    file: str
    fields: Callable[[bytes, np.random.Generator], bytes]
    commands: tuple[str, ...]
    made: str = ""  # a command that makes the file, or a folder of files


M, D = "{}/m.onnx", "--data {}/d.npz"
FORCED = f"optimize {M} -o {{}}/o.onnx --rank *=2 --no-cache"
KINDS = {
    "model": Kind(
        "m.onnx",
        damaged_model,
        (
            f"inspect {M} --json",
            f"verify {M} {{}}/whole.onnx {D}",
            f"{FORCED} --form svd",
            f"optimize {M} -o {{}}/o.onnx --no-cache --max-error 0.9",
            f"benchmark {M} --iterations 8 --duration 0.01 --warmup 1",
            f"profile {M} -o {{}}/o.json",
        ),
    ),
    "rewritten": Kind(
        "c.onnx",
        damaged_model,
        (f"verify {M} {{}}/c.onnx", "inspect {}/c.onnx"),
        f"optimize {M} -o {{}}/c.onnx --rank *=2 --no-cache",
    ),
    "external": Kind(
        "e.onnx.data",
        damaged_bytes,
        ("inspect {}/e.onnx", "verify {}/e.onnx {}/whole.onnx"),
    ),
    "external-model": Kind(
        "e.onnx", damaged_model, ("inspect {}/e.onnx", "verify {}/e.onnx {}/whole.onnx")
    ),
    "npz": Kind(
        "d.npz",
        damaged_npz,
        (
            f"verify {M} {M} {D} --max-drop 0.01 --accept-baseline",
            f"verify {M} {M} {D}",
            f"{FORCED} --form svd {D} --accept-baseline",
            f"verify {M} {M} {D} --preprocess unit --metric cosine",
        ),
    ),
    "labels": Kind(
        "images/labels.csv",
        damaged_table,
        (f"verify {M} {M} --data {{}}/images --max-drop 0.01 --accept-baseline",),
    ),
    "image": Kind(
        "images/2.png",
        damaged_bytes,
        (f"verify {M} {M} --data {{}}/images", f"verify {M} {M} --data {{}}/images --samples 2"),
    ),
    "preprocess": Kind(
        "p.json",
        damaged_json,
        (
            f"verify {M} {M} --data {{}}/images --preprocess {{}}/p.json",
            f"verify {M} {M} {D} --preprocess {{}}/p.json",
        ),
    ),
    "plan": Kind(
        "c.plan.json",
        damaged_json,
        (f"optimize {M} -o {{}}/o.onnx --plan {{}}/c.plan.json --no-cache",),
        f"optimize {M} -o {{}}/c.onnx --rank *=2 --no-cache",
    ),
    "latency": Kind(
        "l.json",
        damaged_json,
        (f"optimize {M} -o {{}}/o.onnx --latency {{}}/l.json --no-cache --max-error 0.9",),
        f"profile {M} -o {{}}/l.json",
    ),
    "recipe": Kind(
        "r.json",
        damaged_json,
        (
            f"finetune {M} {{}}/c.onnx -o {{}}/o.onnx --data {{}}/t.npz --recipe {{}}/r.json "
            "--accept-baseline",
        ),
        f"optimize {M} -o {{}}/c.onnx --rank *=2 --no-cache",
    ),
    "baseline": Kind(
        "b.json",
        damaged_json,
        (f"benchmark {M} --iterations 8 --duration 0.01 --warmup 1 --baseline {{}}/b.json",),
        f"benchmark {M} --iterations 8 --duration 0.01 --warmup 1 --report {{}}/b.json",
    ),
    "cache": Kind(
        "cache",
        damaged_bytes,
        (f"optimize {M} -o {{}}/o.onnx --cache {{}}/cache --max-error 0.9 --form svd",),
        f"optimize {M} -o {{}}/c1.onnx --cache {{}}/cache --max-error 0.9 --form svd",
    ),
    "work": Kind(
        "work",
        damaged_bytes,
        (
            f"optimize {M} -o {{}}/o.onnx --work-dir {{}}/work --resume --max-error 0.9 "
            "--form svd --calibration {}/d.npz",
        ),
        f"optimize {M} -o {{}}/c2.onnx --work-dir {{}}/work --max-error 0.9 --form svd "
        "--calibration {}/d.npz",
    ),
}


def valid(folder: Path) -> None:
    """A tiny network and files that go with it, none of them damaged."""
    import onnx
    from onnx import helper
    from PIL import Image

    rng = np.random.default_rng(0)

    def stored(name: str, *shape: int) -> onnx.TensorProto:
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        return onnx.numpy_helper.from_array(np.abs(values) if name == "v" else values, name)

    weights = [stored("W0", 32, 3, 3, 3), stored("W1", 32, 32, 3, 3), stored("W2", 32, 5)]
    weights += [stored(name, 32) for name in ("B0", "s", "b", "m", "v")]
    nodes = [
        helper.make_node("Conv", ["x", "W0", "B0"], ["c0"], "conv0", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c0", "s", "b", "m", "v"], ["n0"], "norm0"),
        helper.make_node("Relu", ["n0"], ["r0"], "relu0"),
        helper.make_node("Conv", ["r0", "W1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c1"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "W2"], ["y"], "gemm"),
    ]
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 12, 12])
    scores = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(nodes, "g", [image], [scores], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    for name in ("m", "whole"):
        onnx.save(model, folder / f"{name}.onnx")
    onnx.save(
        model,
        folder / "e.onnx",
        save_as_external_data=True,
        location="e.onnx.data",
        size_threshold=0,
    )
    inputs = rng.standard_normal((12, 3, 12, 12)).astype(np.float32)
    np.savez(folder / "d.npz", x=inputs, label=rng.integers(0, 5, 12))
    many = rng.standard_normal((80, 3, 12, 12)).astype(np.float32)
    np.savez(folder / "t.npz", x=many, label=rng.integers(0, 5, 80))
    (folder / "images").mkdir()
    rows = ["file,label"]
    for number in range(4):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
        rows.append(f"{number}.png,{number}")
    (folder / "images/labels.csv").write_text("\n".join(rows))
    recipe = {"scale": 0.01, "mean": [0.4, 0.5, 0.4], "std": [0.2], "layout": "NCHW", "crop": 12}
    (folder / "p.json").write_text(json.dumps({**recipe, "resize": 12, "channel_order": "BGR"}))
    training = {"epochs": 1, "batch": 4, "temperature": 4.0, "augment": ["flip"], "train": "chains"}
    (folder / "r.json").write_text(json.dumps({**training, "optimizer": "sgd", "patience": 1}))


def prepared(folder: Path, kinds: Iterable[str]) -> None:
    """A folder of valid files in which every kind's commands succeed."""
    folder.mkdir()
    valid(folder)
    for command in dict.fromkeys(KINDS[name].made for name in kinds):
        ended = called(command, folder) if command else (0, "")
        if ended[0] != 0:
            raise SystemExit(f"{command}: {ended}")


def called(command: str, folder: Path) -> tuple[int, str]:
    """A command's exit code and what it printed, with the traceback of what escaped it."""
    from typer.testing import CliRunner

    from onnxcp.cli import app

    name, *rest = command.split()
    short = RUN if name == "optimize" else (*FAST, "--quiet") if name == "finetune" else FAST
    extra = [] if name == "inspect" else list(short)
    arguments = [name, *(part.replace("{}", str(folder)) for part in rest), *extra]
    ended = CliRunner().invoke(app, arguments)
    text = ended.output
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        text += "".join(traceback.format_exception(ended.exception))
        return -1, text
    return ended.exit_code, text


def damage(kind: Kind, folder: Path, seed: int) -> str:
    """Damage a file in a folder; its name."""
    rng = np.random.default_rng(seed)
    target = folder / kind.file
    if target.is_dir():
        files = sorted(p for p in target.rglob("*") if p.is_file())
        target = files[rng.integers(len(files))]
    data = target.read_bytes()
    is_json = target.suffix == ".json"  # of which other bytes are hardly ever another document
    is_fields = rng.random() < (0.85 if is_json else 0.6)
    fields = damaged_json if is_json else kind.fields
    if not is_fields or fields is damaged_bytes:
        target.write_bytes(damaged_bytes(data, rng))
    else:
        target.write_bytes(fields(data, rng))
    return str(target.relative_to(folder))


Case = tuple[str, int]  # kind and seed; a negative seed numbers a command on undamaged files


def cases_of(kinds: Sequence[str], seeds: range) -> list[Case]:
    """Every command of some kinds undamaged, then the kinds in turns."""
    whole = [(name, -1 - place) for name in kinds for place in range(len(KINDS[name].commands))]
    return [*whole, *((name, seed) for seed in seeds for name in kinds)]


def work(cases: Sequence[Case], home: Path, keep: Path | None, until: float | None) -> None:
    """Run cases until a time, and print a line of JSON before and after each; keep the files of
    findings."""
    import pytest

    sys.path.insert(0, str(ROOT / "tests/support"))
    importlib.import_module("quiet").install(pytest.MonkeyPatch())
    whole, folder = home / "whole", home / "case"
    if not whole.exists():
        prepared(whole, {name for name, _ in cases})
    for name, seed in cases:
        if until is not None and time.time() > until:
            return
        kind = KINDS[name]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        file = damage(kind, folder, seed) if seed >= 0 else "none"
        command = kind.commands[seed % len(kind.commands) if seed >= 0 else -1 - seed]
        said({"kind": name, "seed": seed, "file": file, "command": command})
        signal.setitimer(signal.ITIMER_PROF, BUSY)  # what it sends ends the process
        code, text = called(command, folder)
        if is_finding(seed, code, text):
            _keep(folder, keep, f"{name}-{seed}")
        said({"code": code, "text": text[-2000:]})


def is_finding(seed: int, code: int | str, text: str) -> bool:
    return code not in (ALLOWED if seed >= 0 else (0,)) or "Traceback" in text


def said(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True, file=sys.__stdout__)


def lines_of(
    cases: Sequence[Case], home: Path, keep: Path | None, until: float | None
) -> Iterator[dict[str, Any]]:
    """What a worker says; a last line says how it ended, if that was not well."""
    environment = {**os.environ, "ONNXCP_CACHE": str(home / "kept")}
    task = {"cases": cases, "keep": None if keep is None else str(keep), "until": until}
    (home / "task.json").write_text(json.dumps(task))
    with (
        (home / "stderr").open("wb+") as errors,
        subprocess.Popen(
            [sys.executable, __file__, "--worker", str(home)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        ) as worker,
    ):
        assert worker.stdout is not None
        while True:
            ready, _, _ = select.select([worker.stdout], [], [], HANG)
            if not ready:
                worker.kill()
                yield {"code": "hang", "text": ""}
                return
            line = worker.stdout.readline()
            if not line:
                break
            yield json.loads(line)
        code = worker.wait()
        if code:
            errors.seek(0)
            words = errors.read()[-1500:].decode(errors="replace")
            yield {"code": f"died with {code}", "text": words}


def run(
    kinds: Sequence[str], seeds: range, keep: Path | None = None, seconds: float | None = None
) -> list[dict[str, Any]]:
    """All cases of some kinds, or as many as there is time for: a row for each kind, with how many
    were run and what was found."""
    cases: Sequence[Case] = cases_of(kinds, seeds)
    until = None if seconds is None else time.time() + seconds
    rows = {name: {"kind": name, "codes": Counter[str](), "findings": []} for name in kinds}
    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        while cases and (until is None or time.time() < until):
            current = _worked(cases, home, keep, until, rows)
            if current is None:
                break
            cases = cases[cases.index((current["kind"], current["seed"])) + 1 :]
    return list(rows.values())


def _worked(
    cases: Sequence[Case],
    home: Path,
    keep: Path | None,
    until: float | None,
    rows: dict[str, dict[str, Any]],
) -> dict[str, Any] | None:
    """Put into rows what one worker says; the last case that it began."""
    current: dict[str, Any] | None = None
    for line in lines_of(cases, home, keep, until):
        if "kind" in line:
            current = line
            continue
        if current is None:
            raise SystemExit(f"no case was begun: {line}")
        row = rows[current["kind"]]
        if current["seed"] >= 0:
            row["codes"][str(line["code"])] += 1
        if is_finding(current["seed"], line["code"], line["text"]):
            row["findings"].append({**current, **line})
            print({**current, **line}, file=sys.stderr, flush=True)
        if isinstance(line["code"], str):  # the worker is gone, and could not keep them
            _keep(home / "case", keep, f"{current['kind']}-{current['seed']}")
    return current


def _keep(case: Path, keep: Path | None, name: str) -> None:
    if keep is not None:
        shutil.copytree(case, keep / name, dirs_exist_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--count", type=int, default=200, help="cases of each kind")
    parser.add_argument("--seconds", type=float, help="begin no case after this time")
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        task = json.loads((options.worker / "task.json").read_text())
        keep = None if task["keep"] is None else Path(task["keep"])
        cases = [(name, seed) for name, seed in task["cases"]]
        work(cases, options.worker, keep, task["until"])
        return 0
    begun = time.perf_counter()
    seeds = range(options.first, options.first + options.count)
    rows = run(options.kind or list(KINDS), seeds, options.keep, options.seconds)
    tried = sum(sum(row["codes"].values()) for row in rows)
    found = sum(len(row["findings"]) for row in rows)
    seconds = round(time.perf_counter() - begun, 1)
    print(
        json.dumps({"cases": tried, "findings": found, "seconds": seconds, "kinds": rows}, indent=2)
    )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
