"""Sessions of ONNX Runtime: models ready to run on a target.

There is no silent fallback: a session that does not run on the requested provider is an error
with its cause. The provider's library must load, and the nodes must be assigned to it. Only shape
arithmetic may run on the CPU, where ONNX Runtime places it by design.
"""

import contextlib
import ctypes
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from onnxcp.errors import ModelError, ProviderError, UsageError
from onnxcp.graph.input_specs import Feeds
from onnxcp.runtime.machine import no_cuda
from onnxcp.runtime.missing_kernels import remedy
from onnxcp.runtime.ort import SILENT, available, builds, cuda_major, load_cuda, runtime
from onnxcp.runtime.provider_table import GRAPH, Provider
from onnxcp.runtime.providers import Target, by_name

# Operators that compute shapes and indices, on few integers.
SHAPE_ARITHMETIC = (
    "Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape CumSum Div Equal Expand Floor "
    "Gather GatherElements GatherND Greater GreaterOrEqual Identity If Less LessOrEqual Loop Max "
    "Min Mod Mul Neg NonZero Not Or Pad Range ReduceMax ReduceMin ReduceProd ReduceSum Reshape "
    "ScatterElements ScatterND Shape Size Slice Split Squeeze Sub Tile Transpose Unsqueeze Where"
)
NO_MEMORY = re.compile("out of memory|failed to allocate memory|bad_alloc|OUT_OF_MEMORY", re.I)
ERROR_LINE = re.compile(r"\[[EW]:onnxruntime[^\]]*\]\s*(.*)")
NUMBERS = "fiub"  # kinds of arrays that can be in a device's memory
SHOWN_NODES, MAX_QUOTED = 3, 400  # nodes named in a message; characters quoted in one


class Runner:
    """A model ready to run.

    A call takes feeds by input name, and returns the outputs in `outputs`: all, or the requested.
    """

    def __init__(
        self,
        session: Any,
        where: str,
        target: Target,
        reopen: Callable[[], Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.session, self._where, self.target = session, where, target
        self._reopen = reopen  # opens the session for timed runs, if it is another one
        all_outputs = (output.name for output in session.get_outputs())
        self.outputs: tuple[str, ...] = tuple(all_outputs if names is None else names)
        self.inputs: tuple[str, ...] = tuple(i.name for i in session.get_inputs())

    def __call__(self, feeds: Feeds) -> list[np.ndarray]:
        """The outputs for these feeds.

        Raises:
            ModelError: ONNX Runtime refuses the feeds, or fails.
            ProviderError: a device is out of memory.
        """
        with as_our_error(f"running {self._where}", self.target):
            results: list[np.ndarray] = self.session.run(list(self.outputs), dict(feeds))
        return results

    def bound(self, feeds: Feeds) -> Callable[[], None]:
        """A function that runs these feeds, for timing.

        It returns when the run is done. On a device, inputs and outputs stay in its memory.
        """
        device = self.target.provider.device
        if device == "cpu":
            given = dict(feeds)
            return lambda: self._timed(lambda: self.session.run(None, given))
        return self.bound_on(device, feeds)

    def bound_on(self, device: str, feeds: Feeds) -> Callable[[], None]:
        """The same with inputs and outputs at fixed addresses in a device's memory."""
        number = int(self.target.settings.get("device_id", "0"))
        results = self(feeds)
        with as_our_error(f"running {self._where}", self.target):
            session = self.session if self._reopen is None else self._reopen()
            binding, value = session.io_binding(), runtime().OrtValue.ortvalue_from_numpy
            for name, array in feeds.items():
                binding.bind_ortvalue_input(name, value(array, device, number))
            for name, array in zip(self.outputs, results, strict=True):
                if isinstance(array, np.ndarray) and array.dtype.kind in NUMBERS:
                    binding.bind_ortvalue_output(name, value(array, device, number))
                else:  # texts, sequences and maps can only be on the host
                    binding.bind_output(name)

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return lambda: self._timed(run)

    def _timed(self, run: Callable[[], object]) -> None:
        """Run without a context manager unless it fails, because its time would count."""
        try:
            run()
        except Exception as error:
            with as_our_error(f"running {self._where}", self.target):
                raise error


def open_runner(source: Path | bytes, target: Target, names: Sequence[str] | None = None) -> Runner:
    """Start a session on a model file or a serialized model.

    `names` are the outputs that a call returns; None means all.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        ProviderError: the session does not run on the requested provider.
        ModelError: ONNX Runtime cannot load the model.
        UsageError: ONNX Runtime refuses a provider option.
    """
    _refuse_unavailable(target)
    if target.provider.device == "cuda":
        load_cuda()
    model = source if isinstance(source, bytes) else str(source)
    where = "the model" if isinstance(source, bytes) else str(source)
    plain = target.without(GRAPH)
    session = _session(model, where, plain)
    _refuse_other_providers(session, target, where)
    reopen = (lambda: _session(model, where, target)) if target.has_graph else None
    return Runner(session, where, plain, reopen, names)


def _session(model: bytes | str, where: str, target: Target) -> Any:
    ort, row = runtime(), target.provider
    providers = [(row.ort_name, target.settings), *(other.ort_name for other in target.others)]

    def start(severity: int = SILENT) -> Any:
        options = _session_options(ort, target)
        options.log_severity_level = severity
        return ort.InferenceSession(model, options, providers=providers, enable_fallback=False)

    try:
        with as_our_error(f"loading {where}", target):
            session = start()
    except ModelError as error:
        if row.name == "cpu" or not _blames_provider(error, target):
            raise
        cause = why_not(row) or f"{error.text}; {_remedy(row)}"
        raise ProviderError(f"provider {row.name}: {cause}") from error
    for row in (target.provider, *target.others):
        if row.ort_name not in session.get_providers():
            with as_our_error(f"loading {where}", target):
                cause = why_not(row) or _first_logged_error(lambda: start(severity=2))
            raise ProviderError(f"provider {row.name}: {row.ort_name} did not load: {cause}")
    return session


def _session_options(ort: ModuleType, target: Target) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = target.count
    options.inter_op_num_threads = 1
    # In a comparison, threads of one session must not spin while the other session runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if target.provider.name != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _refuse_unavailable(target: Target) -> None:
    """Raises ProviderError for a provider that the installed ONNX Runtime does not have."""
    for row in (target.provider, *target.others):
        if row.ort_name not in available():
            have, installed = ", ".join(by_name(available())), " ".join(builds())
            first = f"pip uninstall -y {installed} && " if installed else ""
            pip = f": {first}pip install {row.install}" if row.install else ""
            raise ProviderError(
                f"provider {row.name}: this ONNX Runtime has no {row.ort_name} (it has {have}); "
                f"install a build that does{pip}"
            )


def _refuse_other_providers(session: Any, target: Target, where: str) -> None:
    """Raises ProviderError if nodes run on a provider that was not requested."""
    if target.provider.name == "cpu":
        return
    requested = {row.ort_name for row in (target.provider, *target.others)}
    nodes = assigned(session)
    others = [
        (op, name)
        for ort_name, op, name in nodes
        if ort_name not in requested and op not in SHAPE_ARITHMETIC.split()
    ]
    own = sum(ort_name == target.provider.ort_name for ort_name, _, _ in nodes)
    if others or (nodes and not own):
        kinds = ", ".join(f"{count} {op}" for op, count in Counter(o for o, _ in others).items())
        first = ", ".join(name or op for op, name in others[:SHOWN_NODES])
        raise ProviderError(
            f"provider {target.name}: {len(others)} of {len(nodes)} nodes of {where} would run "
            f"elsewhere ({kinds or 'all shape arithmetic'}; first {first or 'none'}); to allow "
            f"that, use <<provider={target.name},cpu>>"
        )


def assigned(session: Any) -> list[tuple[str, str, str]]:
    """For every node: ONNX Runtime's name of its provider, its operator and its name.

    Raises:
        ProviderError: ONNX Runtime is older than 1.24 and does not report it.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise ProviderError(
            f"ONNX Runtime {runtime().__version__} does not report where nodes run, so that only "
            "the provider cpu can be checked; use 1.24 or newer: pip install --upgrade "
            f"{' '.join(builds()) or 'onnxruntime'}"
        )
    return [
        (part.ep_name, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def why_not(row: Provider) -> str | None:
    """Why a provider's library does not load, with a remedy; None if the cause is unknown."""
    cause = no_cuda(cuda_major()) if row.device == "cuda" else None
    if cause is not None:
        return cause
    folder = Path(str(runtime().__file__)).parent / "capi"
    stem = row.ort_name.removesuffix("ExecutionProvider").lower()
    names = (f"libonnxruntime_providers_{stem}.so", f"onnxruntime_providers_{stem}.dll")
    for path in (folder / name for name in names):
        if path.is_file():
            try:
                ctypes.CDLL(str(path))
            except OSError as error:
                return f"{error}; {_remedy(row)}"
    return None


def _remedy(row: Provider) -> str:
    return f"check {row.libraries}"


def _first_logged_error(start: Callable[[], object]) -> str:
    """The first warning or error that ONNX Runtime only logs when a session starts."""
    runtime().set_default_logger_severity(3)
    try:
        with tempfile.TemporaryFile() as log, _stderr_to(log.fileno()):
            start()
            log.seek(0)
            text = log.read().decode(errors="replace")
    finally:
        runtime().set_default_logger_severity(SILENT)
    lines = [match.group(1) for match in map(ERROR_LINE.search, text.splitlines()) if match]
    return _shortened(lines[0]) if lines else "ONNX Runtime gives no reason; check its libraries"


@contextlib.contextmanager
def _stderr_to(file: int) -> Iterator[None]:
    """Redirect the process's stderr: ONNX Runtime's log bypasses Python's."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)


@contextlib.contextmanager
def as_our_error(doing: str, target: Target) -> Iterator[None]:
    """Within the block, exceptions of ONNX Runtime become ours, with their cause and a remedy.

    Its exceptions share no base class except RuntimeError; their texts hold the cause.

    Raises:
        ProviderError: a device is out of memory.
        UsageError: a provider option is refused.
        ModelError: anything else fails.
    """
    try:
        yield
    except Exception as error:
        is_ort = type(error).__module__.startswith("onnxruntime")
        if not is_ort and not isinstance(error, RuntimeError | ValueError):
            raise
        cause = _cause(error)
        if target.provider.device != "cpu" and NO_MEMORY.search(cause):
            raise ProviderError(
                f"{doing}: the device is out of memory ({cause}); try a smaller <<batch>>, or end "
                "other programs that use it"
            ) from error
        if re.search("provider option|EP option", cause, re.I):
            raise UsageError(
                f"<<provider_option>>: provider {target.provider.name} reports: {cause}; its "
                "documentation lists valid options"
            ) from error
        raise ModelError(f"{doing}: ONNX Runtime reports: {cause}{remedy(cause)}") from error


def _blames_provider(error: ModelError, target: Target) -> bool:
    """Whether a session failed because of its provider, not because of the model."""
    words = (target.provider.ort_name.removesuffix("ExecutionProvider"), "CUDA", "cuDNN", "driver")
    return any(word.lower() in str(error).lower() for word in words)


def _cause(error: Exception) -> str:
    """The runtime's message in one line, without its prefixes."""
    text = _shortened(str(error)) or type(error).__name__
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text


def _shortened(text: str) -> str:
    """A message in one line of limited length, without the C++ function it starts with."""
    text = " ".join(text.replace("\x1b[m", "").split())
    text = re.sub(r"^/\S+\.(cc|h):\d+ .*?\)(?: const)? (?=[A-Z\[])", "", text)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]} …"
