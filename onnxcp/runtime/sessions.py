"""Sessions of ONNX Runtime: a model ready to run on a target.

A session that does not truly run on the provider that was asked for is an error with its
cause, never a silent fallback: the library must load, and the nodes must be assigned to it.
Only shape arithmetic may stay on the CPU, where the runtime puts it by design.
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
from onnxcp.runtime.providers import GRAPH, Provider, Target, by_name

# What computes shapes and indices: on small integers, in no time.
SHAPE_ARITHMETIC = (
    "Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape CumSum Div Equal Expand Floor "
    "Gather GatherElements GatherND Greater GreaterOrEqual Identity If Less LessOrEqual Loop Max "
    "Min Mod Mul Neg NonZero Not Or Pad Range ReduceMax ReduceMin ReduceProd ReduceSum Reshape "
    "ScatterElements ScatterND Shape Size Slice Split Squeeze Sub Tile Transpose Unsqueeze Where"
)
NO_MEMORY = re.compile("out of memory|failed to allocate memory|bad_alloc|OUT_OF_MEMORY", re.I)
ERROR_LINE = re.compile(r"\[[EW]:onnxruntime[^\]]*\]\s*(.*)")
NUMBERS = "fiub"  # kinds of arrays that devices hold
NAMED, LONGEST = 3, 400  # nodes named in a message; characters quoted in one


class Runner:
    """A model ready to run. Calling it takes feeds by input name, returns all outputs, or those
    asked for by name."""

    def __init__(
        self,
        session: Any,
        where: str,
        target: Target,
        again: Callable[[], Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.session, self._where, self.target = session, where, target
        self._again = again  # opens the session that timed runs use, where it is another
        given = (output.name for output in session.get_outputs())
        self.outputs: tuple[str, ...] = tuple(given if names is None else names)
        self.inputs: tuple[str, ...] = tuple(i.name for i in session.get_inputs())

    def __call__(self, feeds: Feeds) -> list[np.ndarray]:
        """Raises ModelError if the runtime refuses the feeds or fails, ProviderError if a
        device has no memory left."""
        with as_our_error(f"running {self._where}", self.target):
            results: list[np.ndarray] = self.session.run(list(self.outputs), dict(feeds))
        return results

    def bound(self, feeds: Feeds) -> Callable[[], None]:
        """A run on these feeds to be timed: synchronous, and on a device with inputs and
        outputs that stay in its memory."""
        device = self.target.provider.device
        if device == "cpu":
            given = dict(feeds)
            return lambda: self._timed(lambda: self.session.run(None, given))
        return self.bound_on(device, feeds)

    def bound_on(self, device: str, feeds: Feeds) -> Callable[[], None]:
        """The same with inputs and outputs in a device's memory, at addresses that stay."""
        number = int(self.target.settings.get("device_id", "0"))
        results = self(feeds)
        with as_our_error(f"running {self._where}", self.target):
            session = self.session if self._again is None else self._again()
            binding, value = session.io_binding(), runtime().OrtValue.ortvalue_from_numpy
            for name, array in feeds.items():
                binding.bind_ortvalue_input(name, value(array, device, number))
            for name, array in zip(self.outputs, results, strict=True):
                if isinstance(array, np.ndarray) and array.dtype.kind in NUMBERS:
                    binding.bind_ortvalue_output(name, value(array, device, number))
                else:  # texts, sequences and maps are on the host alone
                    binding.bind_output(name)

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return lambda: self._timed(run)

    def _timed(self, run: Callable[[], object]) -> None:
        """Enters no context manager unless something fails: its time would be counted."""
        try:
            run()
        except Exception as error:
            with as_our_error(f"running {self._where}", self.target):
                raise error


def open_runner(source: Path | bytes, target: Target, names: Sequence[str] | None = None) -> Runner:
    """Start a session on a model file or a serialized model; `names` are the outputs that a call
    returns, all where they are not given.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        ProviderError: the session does not run on the provider asked for.
        ModelError: the runtime can not load the model.
        UsageError: the runtime refuses an option of the provider.
    """
    _refuse_what_is_not_offered(target)
    if target.provider.device == "cuda":
        load_cuda()
    model = source if isinstance(source, bytes) else str(source)
    where = "the model" if isinstance(source, bytes) else str(source)
    plain = target.without(GRAPH)
    session = _session(model, where, plain)
    _refuse_strays(session, target, where)
    again = (lambda: _session(model, where, target)) if target.has_graph else None
    return Runner(session, where, plain, again, names)


def _session(model: bytes | str, where: str, target: Target) -> Any:
    ort, row = runtime(), target.provider
    given = [(row.ort_name, target.settings), *(other.ort_name for other in target.others)]

    def start(severity: int = SILENT) -> Any:
        options = _session_options(ort, target)
        options.log_severity_level = severity
        return ort.InferenceSession(model, options, providers=given, enable_fallback=False)

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
                cause = why_not(row) or _said_in_passing(lambda: start(severity=2))
            raise ProviderError(f"provider {row.name}: {row.ort_name} did not load: {cause}")
    return session


def _session_options(ort: ModuleType, target: Target) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = target.count
    options.inter_op_num_threads = 1
    # Threads of one session must not spin while the other one of a comparison runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if target.provider.name != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _refuse_what_is_not_offered(target: Target) -> None:
    for row in (target.provider, *target.others):
        if row.ort_name not in available():
            have, here = ", ".join(by_name(available())), " ".join(builds())
            first = f"pip uninstall -y {here} && " if here else ""
            pip = f": {first}pip install {row.install}" if row.install else ""
            raise ProviderError(
                f"provider {row.name}: this ONNX Runtime has no {row.ort_name} (it has {have}); "
                f"install a build that does{pip}"
            )


def _refuse_strays(session: Any, target: Target, where: str) -> None:
    """Raises ProviderError if nodes run on a provider that was not asked for."""
    if target.provider.name == "cpu":
        return
    asked = {row.ort_name for row in (target.provider, *target.others)}
    nodes = assigned(session)
    strays = [
        (op, name)
        for ort_name, op, name in nodes
        if ort_name not in asked and op not in SHAPE_ARITHMETIC.split()
    ]
    own = sum(ort_name == target.provider.ort_name for ort_name, _, _ in nodes)
    if strays or (nodes and not own):
        kinds = ", ".join(f"{count} {op}" for op, count in Counter(o for o, _ in strays).items())
        first = ", ".join(name or op for op, name in strays[:NAMED])
        raise ProviderError(
            f"provider {target.name}: {len(strays)} of {len(nodes)} nodes of {where} would run "
            f"elsewhere ({kinds or 'all shape arithmetic'}; first {first or 'none'}); to have it "
            f"so, say <<provider={target.name},cpu>>"
        )


def assigned(session: Any) -> list[tuple[str, str, str]]:
    """Every node as the runtime's name of its provider, its type and its name.

    Raises:
        ProviderError: a runtime before 1.24 does not tell.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise ProviderError(
            f"ONNX Runtime {runtime().__version__} does not tell where nodes run, so no provider "
            "but cpu can be proven; take 1.24 or newer: pip install --upgrade "
            f"{' '.join(builds()) or 'onnxruntime'}"
        )
    return [
        (part.ep_name, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def why_not(row: Provider) -> str | None:
    """Why a provider's library does not load, and what to do; None if that is not known."""
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


def _said_in_passing(start: Callable[[], object]) -> str:
    """The first complaint that the runtime logs, and not raises, when a session starts."""
    runtime().set_default_logger_severity(3)
    try:
        with tempfile.TemporaryFile() as log, _stderr_to(log.fileno()):
            start()
            log.seek(0)
            text = log.read().decode(errors="replace")
    finally:
        runtime().set_default_logger_severity(SILENT)
    lines = [found.group(1) for found in map(ERROR_LINE.search, text.splitlines()) if found]
    return _shortened(lines[0]) if lines else "it gives no reason; check its libraries"


@contextlib.contextmanager
def _stderr_to(file: int) -> Iterator[None]:
    """Point the process's stderr elsewhere: the runtime logs past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def as_our_error(doing: str, target: Target) -> Iterator[None]:
    """The runtime's exceptions share no base but RuntimeError; their texts hold the cause."""
    try:
        yield
    except Exception as error:
        foreign = type(error).__module__.startswith("onnxruntime")
        if not foreign and not isinstance(error, RuntimeError | ValueError):
            raise
        cause = _cause(error)
        if target.provider.device != "cpu" and NO_MEMORY.search(cause):
            raise ProviderError(
                f"{doing}: the device is out of memory ({cause}); try a smaller <<batch>>, or free "
                "it of other programs"
            ) from error
        if re.search("provider option|EP option", cause, re.I):
            raise UsageError(
                f"<<provider_option>>: provider {target.provider.name} says: {cause}; its "
                "documentation lists them"
            ) from error
        raise ModelError(f"{doing}: ONNX Runtime says: {cause}{remedy(cause)}") from error


def _blames_provider(error: ModelError, target: Target) -> bool:
    """Whether a session failed for its provider, and not for the model."""
    words = (target.provider.ort_name.removesuffix("ExecutionProvider"), "CUDA", "cuDNN", "driver")
    return any(word.lower() in str(error).lower() for word in words)


def _cause(error: Exception) -> str:
    """In one line, without what the runtime puts before its own words."""
    text = _shortened(str(error)) or type(error).__name__
    return text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text


def _shortened(text: str) -> str:
    """In one line, without the C++ function that the runtime names first."""
    text = " ".join(text.replace("\x1b[m", "").split())
    text = re.sub(r"^/\S+\.(cc|h):\d+ .*?\)(?: const)? (?=[A-Z\[])", "", text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
