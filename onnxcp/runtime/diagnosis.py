"""What this installation can do, and its problems, each with a remedy.

The facts come from `machine`, `ort`, `packages` and `probe`; this module combines and judges
them, and `report.doctor` shows them.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxcp.errors import MissingPackage, ProviderError
from onnxcp.runtime.machine import (
    Nvidia,
    cores,
    cpu_flags,
    cpu_name,
    memory_bytes,
    nvidia,
    physical_cores,
)
from onnxcp.runtime.ort import available, builds, cuda_version, runtime
from onnxcp.runtime.packages import LIBRARIES
from onnxcp.runtime.probe import Proof, prove
from onnxcp.runtime.provider_table import PROVIDERS
from onnxcp.runtime.providers import Target, by_name

VECTORS = {  # instruction sets that convolutions use, by Linux's names of CPU flags
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
}
CPU_BUILD, GPU_BUILD = "'onnxcp[cpu]'", "'onnxcp[gpu]'"  # arguments of pip install


@dataclass(frozen=True, slots=True)
class Machine:
    """The platform and its CPU; `usable` cores respect affinity and a container's quota."""

    platform: str
    python: str
    cpu: str
    vectors: tuple[str, ...]
    channel_block: int
    logical: int
    physical: int | None
    usable: float
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Installed:
    """ONNX Runtime: its version, its packages with versions, and the CUDA it was built for.

    `problem` says why it does not load, None if it does.
    """

    version: str | None
    builds: Mapping[str, str]
    cuda: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    """The whole diagnosis; `required` names the providers that must work."""

    machine: Machine
    nvidia: Nvidia
    installed: Installed
    required: tuple[str, ...]
    proofs: tuple[Proof, ...]
    libraries: Mapping[str, str | None]

    @property
    def failed(self) -> tuple[Proof, ...]:
        """Required providers that do not work."""
        return tuple(p for p in self.proofs if p.problem and p.provider in self.required)

    @property
    def exit_code(self) -> int:
        """0 if all required providers work, else 3."""
        return ProviderError.exit_code if self.installed.problem or self.failed else 0

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems with a remedy after the semicolon; those that can cause others come first."""
        texts = [self.installed.problem, _several_builds(self), _unused_gpu(self)]
        texts += [f"{proof.provider}: {proof.problem}" for proof in self.failed]
        return tuple(text for text in (*texts, _no_cudnn(self), _missing_packages(self)) if text)


def examine(names: Sequence[str], limit: float) -> Findings:
    """Examine the installation, and test the named providers, or all that ONNX Runtime offers.

    `limit` is the time limit of one test, in seconds.

    Raises:
        UsageError: a provider is unknown.
    """
    installed = _installed()
    if installed.problem is None:
        requested = tuple(dict.fromkeys(Target.named(name).name for name in names))
    else:
        requested = ()
    required = requested or ("cpu", *_main_providers(installed))
    tested = requested or _offered(installed, required)
    proofs = tuple(prove(name, limit) for name in tested)
    versions = {library.name: library.version for library in LIBRARIES}
    return Findings(_machine(), nvidia(), installed, required, proofs, versions)


def _machine() -> Machine:
    return Machine(
        platform=platform.platform(),
        python=platform.python_version(),
        cpu=cpu_name(),
        vectors=tuple(name for flag, name in VECTORS.items() if flag in cpu_flags()),
        channel_block=Target(PROVIDERS["cpu"]).block,
        logical=os.cpu_count() or 1,
        physical=physical_cores(),
        usable=cores(),
        memory_bytes=memory_bytes(),
    )


def _installed() -> Installed:
    try:
        return Installed(str(runtime().__version__), builds(), cuda_version(), None)
    except MissingPackage as error:
        return Installed(None, builds(), None, error.text)


def _main_providers(installed: Installed) -> list[str]:
    """The providers of the installed builds: cuda for onnxruntime-gpu, else the suffix."""
    suffixes = [name.removeprefix("onnxruntime").strip("-") for name in installed.builds]
    names = ("cuda" if suffix == "gpu" else suffix for suffix in suffixes)
    return [name for name in names if name in PROVIDERS]


def _offered(installed: Installed, required: Sequence[str]) -> tuple[str, ...]:
    if installed.problem is not None:
        return ()
    return tuple(dict.fromkeys((*required, *by_name(available()))))


def _several_builds(findings: Findings) -> str | None:
    names = list(findings.installed.builds)
    if len(names) < 2:
        return None
    for_gpu = "onnxruntime-gpu" in names
    kept = GPU_BUILD if for_gpu else names[-1]
    other = ""
    if "onnxruntime" in names and not findings.nvidia.gpus:
        kept, other = CPU_BUILD, f"; for NVIDIA GPUs {GPU_BUILD} in its place" if for_gpu else ""
    return (
        f"{' and '.join(names)} are both installed and overwrite each other's files; keep one: "
        f"pip uninstall -y {' '.join(names)} && pip install {kept}{other}"
    )


def _unused_gpu(findings: Findings) -> str | None:
    """The problem of a GPU that the installed build cannot use."""
    names = " ".join(findings.installed.builds)
    if not findings.nvidia.gpus or findings.installed.problem or findings.installed.cuda:
        return None
    return (
        f"{findings.nvidia.gpus[0].name} is present, but {names or 'this ONNX Runtime'} cannot use "
        f"it; for <<provider=cuda>>: pip uninstall -y {names} && pip install {GPU_BUILD}"
    )


def _no_cudnn(findings: Findings) -> str | None:
    versions = [proof.loaded for proof in findings.proofs if proof.loaded]
    absent = [name for name, version in versions[0].items() if version is None] if versions else []
    if not absent or not findings.installed.cuda:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return (
        f"{' and '.join(absent)} {verb} not found; for NVIDIA GPUs: pip install "
        "'onnxruntime-gpu[cuda,cudnn]'"
    )


def _missing_packages(findings: Findings) -> str | None:
    absent = [row for row in LIBRARIES if not row.extra and findings.libraries[row.name] is None]
    if not absent:
        return None
    names = ", ".join(f"{row.name} ({row.purpose})" for row in absent)
    return f"not installed: {names}; to have all commands: {absent[0].install}"
