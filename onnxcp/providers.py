"""Execution providers and the sessions that run on them; the only module that knows
onnxruntime.

Everyone else gets a `Runner`: a callable feeds → outputs. A session that does not run on
the provider that was asked for is an error, never a silent fallback.
"""

import contextlib
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from onnxcp.errors import MissingPackage, ModelError, ProviderError, UsageError
from onnxcp.tensors import Feeds

INSTALL = (
    "ONNX Runtime is not installed: pip install 'onnxcp[cpu]' for CPUs, or "
    "pip install 'onnxcp[gpu]' for NVIDIA GPUs (one of the two, never both)"
)


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of `PROVIDERS`.

    `tolerance` bounds the relative L2 difference of two models' outputs that compute the
    same thing on this provider, by the dtype of the weights.
    """

    name: str
    ort_name: str
    options: Mapping[str, str] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)


# float32: rounding of 6e-8 a product, times the cancellation inside a chain, times the
# depth of a network: at most 3.3e-6 on most real networks; 2.4e-4 was seen in a style
# transfer network whose InstanceNormalization magnifies it.
# float16: weights are rounded to 5e-4 on both sides of the comparison; 6e-4 was seen.
ROUNDING = {"float16": 1e-2, "float32": 1e-3, "float64": 1e-3}

PROVIDERS = {
    "cpu": Provider("cpu", "CPUExecutionProvider", tolerance=ROUNDING),
    "cuda": Provider(
        "cuda",
        "CUDAExecutionProvider",
        options={"cudnn_conv_algo_search": "EXHAUSTIVE"},
        tolerance=ROUNDING,
    ),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where models run: a provider, its options, and threads (0: the runtime's choice)."""

    provider: Provider
    threads: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def named(
        cls, name: str, threads: int = 0, options: Mapping[str, str] | None = None
    ) -> "Target":
        """Raises UsageError for an unknown provider or a negative thread count."""
        if name not in PROVIDERS:
            raise UsageError(f"--provider {name}: unknown; choose one of {', '.join(PROVIDERS)}")
        if threads < 0:
            raise UsageError(f"--threads {threads}: give 1 or more, or 0 for the runtime's choice")
        return cls(PROVIDERS[name], threads, options or {})

    @property
    def unhurried(self) -> "Target":
        """The same with all cores: for outputs whose time does not matter."""
        return Target(self.provider, 0, self.options)

    @property
    def block(self) -> int:
        """Channels that cost as much as one: ranks should be multiples of it.

        The CPU's convolutions work on blocks of 16 channels with AVX-512 and of 8 on other
        x86 (MLAS, NCHWc); 16 suits both, and tensor cores, where that is not known.
        """
        if self.provider.name != "cpu" or "avx512f" in cpu_flags():
            return 16
        return 8 if platform.machine().lower() in ("x86_64", "amd64") else 16

    def tolerance(self, dtype: np.dtype) -> float:
        return self.provider.tolerance[np.dtype(dtype).name]


class Runner:
    """A model ready to run. Calling it takes feeds by input name, returns all outputs."""

    def __init__(self, session: Any, where: str = "the model") -> None:
        self._session, self._where = session, where
        self.outputs: tuple[str, ...] = tuple(o.name for o in session.get_outputs())
        self.inputs: tuple[str, ...] = tuple(i.name for i in session.get_inputs())

    def __call__(self, feeds: Feeds) -> list[np.ndarray]:
        """Raises ModelError if the runtime refuses the feeds or fails."""
        with _as_model_error(f"running {self._where}"):
            results: list[np.ndarray] = self._session.run(None, dict(feeds))
        return results


def open_runner(source: Path | bytes, target: Target) -> Runner:
    """Start a session on a model file or a serialized model.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        ProviderError: the session does not run on the provider asked for.
        ModelError: the runtime can not load the model.
    """
    ort = runtime()
    row = target.provider
    if row.ort_name not in ort.get_available_providers():
        have = ", ".join(ort.get_available_providers())
        raise ProviderError(
            f"provider {row.name}: this ONNX Runtime has no {row.ort_name} (it has {have}); "
            "install the build that does: pip uninstall onnxruntime; pip install 'onnxcp[gpu]'"
        )
    chosen = [(row.ort_name, {**row.options, **target.options})]
    model = source if isinstance(source, bytes) else str(source)
    where = "the model" if isinstance(source, bytes) else str(source)
    with _as_model_error(f"loading {where}"):
        session = ort.InferenceSession(model, _session_options(ort, target), providers=chosen)
    if session.get_providers()[0] != row.ort_name:
        raise ProviderError(
            f"provider {row.name}: {row.ort_name} did not load and ONNX Runtime fell back to "
            f"{session.get_providers()[0]}; check its driver and libraries"
        )
    return Runner(session, where)


def _session_options(ort: ModuleType, target: Target) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    # Threads of one session must not spin while the other one of a comparison runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if target.provider.name != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def available() -> tuple[str, ...]:
    """The runtime's names of the providers it was built with."""
    return tuple(runtime().get_available_providers())


def runtime() -> ModuleType:
    """The onnxruntime module. Raises MissingPackage with the command that installs it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(INSTALL) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingPackage(INSTALL)
    module: ModuleType = onnxruntime
    return module


@contextlib.contextmanager
def _as_model_error(doing: str) -> Iterator[None]:
    """The runtime's exceptions share no base but RuntimeError; their texts hold the cause."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{doing}: ONNX Runtime says: {_cause(error)}") from error
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            raise ModelError(f"{doing}: ONNX Runtime says: {_cause(error)}") from error
        raise


def _cause(error: Exception) -> str:
    """In one line, without the "[ONNXRuntimeError] : 1 : FAIL : " before it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this CPU as Linux names them; empty where it does not tell."""
    return frozenset(_of_cpu("flags", "Features").split())


def cpu_name() -> str:
    """The CPU as Linux, else Python, names it."""
    return _of_cpu("model name").strip() or platform.processor() or platform.machine()


def _of_cpu(*starts: str) -> str:
    """What Linux says of the first CPU on the line that starts so; empty where it does not."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return ""
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line.startswith(starts)), "").partition(":")[2]


def environment(target: Target) -> dict[str, Any]:
    """What a timing depends on, for the record."""
    wanted = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd")
    return {
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "onnxruntime": str(runtime().__version__),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_flags": [flag for flag in wanted if flag in cpu_flags()],
        "channel_block": target.block,
    }
