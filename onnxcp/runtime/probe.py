"""The test of a provider: a Conv that runs on it in a separate process.

A broken library can crash the process that loads it, or block it forever; here that is a result
like any other. The process is `python -m onnxcp.runtime.probe PROVIDER FILE`; it writes its
result to the file, because libraries print to stdout.
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
KILL_SECONDS = 5.0  # for a killed process to end; one inside a driver call may not
IMAGE, WEIGHT = (1, 16, 14, 14), (16, 16, 3, 3)
MAX_QUOTED = 300  # characters of a crashed process's last line


@dataclass(frozen=True, slots=True)
class Proof:
    """The result for one provider; `problem` states cause and remedy, None if it works.

    `seconds` is the time to start and run a session, `difference` the relative L2 difference from
    numpy's result. `loaded` has the versions of the device's libraries, None for a missing one.
    """

    provider: str
    problem: str | None
    seconds: float | None = None
    difference: float | None = None
    loaded: Mapping[str, str | None] = field(default_factory=dict)


def prove(name: str, limit: float) -> Proof:
    """Run a Conv on the provider, or the providers of a list, for at most `limit` seconds.

    Raises:
        UsageError: a provider is unknown.
    """
    target = Target.named(name)
    with temporary.folder() as folder:
        code = _run_child(target.name, folder, limit)
        if code == 0:
            return Proof(**json.loads((folder / "answer").read_text(encoding="utf-8")))
        output = (folder / "said").read_text(encoding="utf-8", errors="replace")
    hint = f"check {target.provider.libraries}"
    if code is None:
        return Proof(target.name, f"no answer within {limit:g} s; {hint}, or raise <<timeout>>")
    last_line = "".join(f": {line}" for line in output.split("\n")[-2:-1])[:MAX_QUOTED]
    return Proof(target.name, f"its process ended with {_ending(code)}{last_line}; {hint}")


def _run_child(name: str, folder: Path, limit: float) -> int | None:
    """The exit code of the test process, None after a timeout; it has the same import path."""
    paths = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    with (folder / "said").open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, *CHILD, name, str(folder / "answer")],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
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
        child.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        child.returncode = -signal.SIGTERM  # Python would wait for it again otherwise


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def answer(name: str) -> Proof:
    """The test itself, run in the separate process, which it may crash."""
    target, begin = Target.named(name).exact, time.perf_counter()
    difference, problem = None, None
    try:
        difference = _difference(target)
        problem = _judged(difference, target)
    except ModelError as error:  # the model itself is valid
        problem = f"{error.text}; check {target.provider.libraries}"
    except OnnxcpError as error:
        problem = error.text.removeprefix(f"provider {target.name}: ")
    except Exception as error:
        problem = f"{type(error).__name__}: {error}; check the libraries that onnxcp uses"
    seconds = time.perf_counter() - begin
    finite = difference if difference is not None and np.isfinite(difference) else None
    return Proof(target.name, problem, seconds, finite, _loaded(target))


def _judged(difference: float, target: Target) -> str | None:
    tolerance = target.tolerance(np.dtype(np.float32))
    if difference <= tolerance:
        return None
    return (
        f"its result is wrong: it differs by {difference:.1e} from numpy's, more than rounding, "
        f"{tolerance:g}; update the device's driver, and check {target.provider.libraries}"
    )


def _difference(target: Target) -> float:
    """The relative L2 difference of a Conv's output from numpy's."""
    rng = np.random.default_rng(0)
    image, weight = (rng.standard_normal(size).astype(np.float32) for size in (IMAGE, WEIGHT))
    (output,) = open_runner(_model(weight), target)({"x": image})
    windows = np.lib.stride_tricks.sliding_window_view(image, WEIGHT[2:], axis=(2, 3))
    expected = np.einsum("nshwyx,tsyx->nthw", windows, weight)
    return float(np.linalg.norm(output - expected) / np.linalg.norm(expected))


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
