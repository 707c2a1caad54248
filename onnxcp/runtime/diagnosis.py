"""What this installation can do, and what keeps it from doing more.

Every fact is gathered where it belongs (`machine`, `ort`, `packages`, `probe`); here they are
put together and judged, and `report.doctor` shows them.
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
from onnxcp.runtime.providers import PROVIDERS, Target, by_name

VECTORS = {  # instruction sets that convolutions use, by Linux's names for them
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
}
CPU_BUILD, GPU_BUILD = "'onnxcp[cpu]'", "'onnxcp[gpu]'"  # as pip is told


@dataclass(frozen=True, slots=True)
class Machine:
    """The platform and its CPU. `usable` cores are those of a container's quota."""

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
    """ONNX Runtime: its version, or the problem that it does not load for; packages that are
    it, by name; the CUDA that it was built for."""

    version: str | None
    builds: Mapping[str, str]
    cuda: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found. `required` names the providers that have to work."""

    machine: Machine
    nvidia: Nvidia
    installed: Installed
    required: tuple[str, ...]
    proofs: tuple[Proof, ...]
    libraries: Mapping[str, str | None]

    @property
    def failed(self) -> tuple[Proof, ...]:
        """Providers that do not work and have to."""
        return tuple(p for p in self.proofs if p.problem and p.provider in self.required)

    @property
    def exit_code(self) -> int:
        """0 if all that was asked for works."""
        return ProviderError.exit_code if self.installed.problem or self.failed else 0

    @property
    def problems(self) -> tuple[str, ...]:
        """What to mend, each with its remedy after a semicolon; what may mend others first."""
        found = [self.installed.problem, _several(self), _unused(self)]
        found += [f"{proof.provider}: {proof.problem}" for proof in self.failed]
        return tuple(text for text in (*found, _no_cudnn(self), _incomplete(self)) if text)


def examine(names: Sequence[str], limit: float) -> Findings:
    """Look at everything; prove the providers of these names, else all that are offered.

    `limit` bounds the seconds of one proof.

    Raises:
        UsageError: an unknown provider.
    """
    installed = _installed()
    if installed.problem is None:
        asked = tuple(dict.fromkeys(Target.named(name).name for name in names))
    else:
        asked = ()
    required = asked or ("cpu", *_main_providers(installed))
    wanted = asked or _offered(installed, required)
    proofs = tuple(prove(name, limit) for name in wanted)
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
    """What the installed builds are made for: cuda for onnxruntime-gpu, openvino for
    onnxruntime-openvino."""
    ends = [name.removeprefix("onnxruntime").strip("-") for name in installed.builds]
    return [name for name in ("cuda" if e == "gpu" else e for e in ends) if name in PROVIDERS]


def _offered(installed: Installed, required: Sequence[str]) -> tuple[str, ...]:
    if installed.problem is not None:
        return ()
    return tuple(dict.fromkeys((*required, *by_name(available()))))


def _several(found: Findings) -> str | None:
    names = list(found.installed.builds)
    if len(names) < 2:
        return None
    for_gpu = "onnxruntime-gpu" in names
    kept = GPU_BUILD if for_gpu else names[-1]
    other = ""
    if "onnxruntime" in names and not found.nvidia.gpus:
        kept, other = CPU_BUILD, f"; for NVIDIA GPUs {GPU_BUILD} in its place" if for_gpu else ""
    return (
        f"{' and '.join(names)} are installed at once and overwrite each other's files; keep one: "
        f"pip uninstall -y {' '.join(names)} && pip install {kept}{other}"
    )


def _unused(found: Findings) -> str | None:
    """A GPU that the installed build was not made for."""
    here = " ".join(found.installed.builds)
    if not found.nvidia.gpus or found.installed.problem or found.installed.cuda:
        return None
    return (
        f"{found.nvidia.gpus[0].name} is there, and {here or 'this ONNX Runtime'} can not use it; "
        f"for <<provider=cuda>>: pip uninstall -y {here} && pip install {GPU_BUILD}"
    )


def _no_cudnn(found: Findings) -> str | None:
    versions = [proof.loaded for proof in found.proofs if proof.loaded]
    absent = [name for name, version in versions[0].items() if version is None] if versions else []
    if not absent or not found.installed.cuda:
        return None
    are = "is" if len(absent) == 1 else "are"
    return (
        f"{' and '.join(absent)} {are} not found; for NVIDIA GPUs: pip install "
        "'onnxruntime-gpu[cuda,cudnn]'"
    )


def _incomplete(found: Findings) -> str | None:
    absent = [row for row in LIBRARIES if not row.extra and found.libraries[row.name] is None]
    if not absent:
        return None
    what = ", ".join(f"{row.name} ({row.purpose})" for row in absent)
    return f"not installed: {what}; to have all commands: {absent[0].install}"
