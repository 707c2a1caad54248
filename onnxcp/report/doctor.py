"""The report of `doctor` as text and as a page.

Commands are never broken over lines, so that they can be copied.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from onnxcp import __version__
from onnxcp.report.table import Page, Table, texts
from onnxcp.runtime.diagnosis import Findings
from onnxcp.runtime.machine import Gpu
from onnxcp.runtime.packages import LIBRARIES
from onnxcp.runtime.probe import Proof

Row = tuple[str, str]

GIB = 2**30
TO_FIX = "To fix"
LABEL_WIDTH = 14  # characters
INSTALL = "pip (?:un)?install"
COMMAND = re.compile(rf"{INSTALL}(?: -\S+| && {INSTALL}| '[^']*'| onnx[\w.=-]*| tensorrt)+")
UNBROKEN = "\N{NO-BREAK SPACE}"


def page(findings: Findings) -> Page:
    """The diagnosis as a page: the verdict, the problems as warnings, and a table per section."""
    tables = [
        Table([texts(""), texts("")], rows, title)
        for title, rows in _sections(findings).items()
        if title != TO_FIX and rows
    ]
    return Page(_verdict(findings), _document(findings), list(findings.problems), (), tables)


def _document(findings: Findings) -> dict[str, Any]:
    """The whole diagnosis as plain values."""
    libraries = {
        row.name: {
            "version": findings.libraries[row.name],
            "purpose": row.purpose,
            "install": row.install,
        }
        for row in LIBRARIES
    }
    providers = [
        {
            **asdict(proof),
            "works": proof.problem is None,
            "required": proof.provider in findings.required,
        }
        for proof in findings.proofs
    ]
    return {
        "onnxcp": __version__,
        "machine": asdict(findings.machine),
        "nvidia": asdict(findings.nvidia),
        "onnxruntime": asdict(findings.installed),
        "providers": providers,
        "libraries": libraries,
        "problems": findings.problems,
        "exit_code": findings.exit_code,
    }


def as_text(findings: Findings, width: int) -> str:
    """The diagnosis as text of this width: the facts, the problems, and the verdict."""
    sections = _sections(findings).items()
    shown = ("\n".join((title, *_lines(rows, width))) for title, rows in sections if rows)
    return "\n\n".join((*shown, _verdict(findings)))


def _sections(findings: Findings) -> dict[str, list[Row]]:
    """Rows of label and text, by heading."""
    return {
        f"onnxcp {__version__}, Python {findings.machine.python}": _of_machine(findings),
        "ONNX Runtime": list(_of_runtime(findings)),
        "Providers, each tested with a Conv": [
            (p.provider, _state(p, findings)) for p in findings.proofs
        ],
        "Libraries": list(_of_libraries(findings)),
        TO_FIX: [("", text) for text in findings.problems],
    }


def _lines(rows: Iterable[Row], width: int) -> Iterator[str]:
    """Lines of rows; each part after a semicolon, mostly a remedy, starts a new line."""
    for label, text in rows:
        start, below = (
            (f"  {label:<{LABEL_WIDTH}}", " " * (2 + LABEL_WIDTH)) if label else ("  - ", "    ")
        )
        cause, *remedies = text.split("; ")
        yield from _wrapped(cause, width, start, below)
        for remedy in remedies:
            yield from _wrapped(remedy, width, f"{below}-> ", f"{below}   ")


def _wrapped(text: str, width: int, start: str, below: str) -> list[str]:
    unbroken = COMMAND.sub(lambda match: match[0].replace(" ", UNBROKEN), text)
    lines = textwrap.wrap(
        unbroken,
        width,
        initial_indent=start,
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(UNBROKEN, " ") for line in lines]


def _of_machine(findings: Findings) -> list[Row]:
    machine = findings.machine
    physical = "" if machine.physical is None else f"{machine.physical} physical, "
    size = machine.memory_bytes
    memory = "unknown" if size is None else f"{size / GIB:.1f} GiB"
    return [
        ("platform", machine.platform),
        ("CPU", machine.cpu),
        ("vectors", ", ".join(machine.vectors) or "not reported by this system"),
        ("channels", f"in blocks of {machine.channel_block}"),
        ("cores", f"{machine.logical} logical, {physical}{machine.usable:g} for this process"),
        ("memory", memory),
        *_of_nvidia(findings),
    ]


def _of_nvidia(findings: Findings) -> Iterator[Row]:
    nvidia = findings.nvidia
    for number, gpu in enumerate(nvidia.gpus):
        yield f"GPU {number}", _gpu(gpu)
    if nvidia.problem is not None:
        yield "GPU", nvidia.problem
    if nvidia.cuda is not None:
        newest = ".".join(map(str, nvidia.cuda))
        yield "driver", f"{nvidia.driver or 'of NVIDIA'}, supports CUDA up to {newest}"


def _gpu(gpu: Gpu) -> str:
    return f"{gpu.name}, {gpu.bytes / GIB:.1f} GiB, compute capability {gpu.capability}"


def _of_runtime(findings: Findings) -> Iterator[Row]:
    installed = findings.installed
    names = ", ".join(f"{name} {version}" for name, version in installed.builds.items())
    built = f", built for CUDA {installed.cuda}" if installed.cuda else ""
    yield "build", (names or installed.version or "none") + built
    if installed.problem is not None:
        yield "state", "does not load, see below"
    loaded = next((p.loaded for p in findings.proofs if p.loaded), {})
    if loaded and installed.cuda:
        words = (f"{name} {version or 'not found'}" for name, version in loaded.items())
        yield "loaded", ", ".join(words)


def _state(proof: Proof, findings: Findings) -> str:
    if proof.problem is None:
        return f"works: {proof.seconds:.2f} s, {proof.difference:.0e} from numpy's result"
    return "FAILED, see below" if proof in findings.failed else f"not usable: {proof.problem}"


def _of_libraries(findings: Findings) -> Iterator[Row]:
    for row in LIBRARIES:
        version = findings.libraries[row.name]
        yield row.name, version or f"missing, for {row.purpose}; {row.install}"


def _verdict(findings: Findings) -> str:
    if findings.installed.problem is not None:
        return "No model can be run without ONNX Runtime."
    if findings.failed:
        return f"Does not work: {', '.join(proof.provider for proof in findings.failed)}."
    return f"Works: {', '.join(p.provider for p in findings.proofs if p.problem is None)}."
