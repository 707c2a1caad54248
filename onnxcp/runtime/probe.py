"""Whether a provider is usable, proven by a Conv that runs on it in a process of its own.

A broken library of a provider may crash the process that loads it, or hang it for ever; here
that is an answer like any other. `python -m onnxcp.runtime.probe PROVIDER FILE` is that process: it
writes its answer to the file, since libraries write to stdout as they like.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from onnxcp.errors import ModelError, OnnxcpError
from onnxcp.runtime import environment
from onnxcp.runtime.parent_process import end_with
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import temporary

CHILD = ("-P", "-m", "onnxcp.runtime.probe")
TO_DIE = 5.0  # seconds that a killed process may take to go; one in a driver's hands may not
IMAGE, WEIGHT = (1, 16, 14, 14), (16, 16, 3, 3)
QUOTED = 300  # characters of a crashed process's last words


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of one provider. `problem` tells cause and remedy; None: it works.

    `seconds` to start and run a session, and the relative L2 `difference` from numpy's result;
    `loaded` has the versions of the device's libraries, None for one that was not found.
    """

    provider: str
    problem: str | None
    seconds: float | None = None
    difference: float | None = None
    loaded: Mapping[str, str | None] = field(default_factory=dict)


def prove(name: str, limit: float) -> Proof:
    """Run a Conv on the provider or providers of this name, for at most `limit` seconds.

    Raises:
        UsageError: an unknown provider.
    """
    target = Target.named(name)
    with temporary.folder() as folder:
        code = _run_child(target.name, folder, limit)
        if code == 0:
            return Proof(**json.loads((folder / "answer").read_text(encoding="utf-8")))
        said = (folder / "said").read_text(encoding="utf-8", errors="replace")
    hint = f"check {target.provider.libraries}"
    if code is None:
        return Proof(target.name, f"no answer within {limit:g} s; {hint}, or raise <<timeout>>")
    words = "".join(f": {line}" for line in said.split("\n")[-2:-1])[:QUOTED]
    return Proof(target.name, f"its process ended with {_ending(code)}{words}; {hint}")


def _run_child(name: str, folder: Path, limit: float) -> int | None:
    """The exit code of a proof; None if it had to be ended. It imports what this process would."""
    paths = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    with (folder / "said").open("wb") as said:
        child = subprocess.Popen(
            [sys.executable, *CHILD, name, str(folder / "answer")],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    try:
        child.wait(TO_DIE)
    except subprocess.TimeoutExpired:
        child.returncode = -signal.SIGTERM  # given up; else Python waits for it again


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def answer(name: str) -> Proof:
    """The proof itself, in the process that it may bring down."""
    target, begin = Target.named(name).exact, time.perf_counter()
    difference, problem = None, None
    try:
        difference = _difference(target)
        problem = _judged(difference, target)
    except ModelError as error:  # there is nothing wrong with the model
        problem = f"{error.text}; check {target.provider.libraries}"
    except OnnxcpError as error:
        problem = error.text.removeprefix(f"provider {target.name}: ")
    except Exception as error:
        problem = f"{type(error).__name__}: {error}; check the libraries that onnxcp uses"
    seconds = time.perf_counter() - begin
    known = difference if difference is not None and np.isfinite(difference) else None
    return Proof(target.name, problem, seconds, known, _loaded(target))


def _judged(difference: float, target: Target) -> str | None:
    most = target.tolerance(np.dtype(np.float32))
    if difference <= most:
        return None
    return (
        f"its result is wrong: {difference:.1e} from numpy's, where {most:g} is rounding; update "
        f"the device's driver, and check {target.provider.libraries}"
    )


def _difference(target: Target) -> float:
    """The relative L2 difference of a Conv's output from numpy's."""
    rng = np.random.default_rng(0)
    image, weight = (rng.standard_normal(size).astype(np.float32) for size in (IMAGE, WEIGHT))
    (found,) = open_runner(_model(weight), target)({"x": image})
    windows = np.lib.stride_tricks.sliding_window_view(image, WEIGHT[2:], axis=(2, 3))
    expected = np.einsum("nshwyx,tsyx->nthw", windows, weight)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _model(weight: np.ndarray) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    image, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", IMAGE), ("y", (1, 16, 12, 12)))
    )
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    stored = numpy_helper.from_array(weight, "w")
    graph = helper.make_graph([node], "proof", [image], [result], [stored])
    opset = helper.make_opsetid("", 13)
    serialized: bytes = helper.make_model(
        graph, ir_version=8, opset_imports=[opset]
    ).SerializeToString()
    return serialized


def _loaded(target: Target) -> dict[str, str | None]:
    if target.provider.device != "cuda":
        return {}
    return {"CUDA": environment.cudart(), "cuDNN": environment.cudnn()}


def _main(name: str, file: str) -> None:
    Path(file).write_text(json.dumps(asdict(answer(name)), allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    end_with(os.getppid())
    _main(*sys.argv[1:])
