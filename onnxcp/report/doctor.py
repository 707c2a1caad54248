"""What `doctor` found, as text and as JSON.

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
MEND = "To mend"
LABEL = 14  # columns of a row's name, and of the lines below it
INSTALL = "pip (?:un)?install"
COMMAND = re.compile(rf"{INSTALL}(?: -\S+| && {INSTALL}| '[^']*'| onnx[\w.=-]*| tensorrt)+")
UNBROKEN = "\N{NO-BREAK SPACE}"


def page(found: Findings) -> Page:
    """What is there, what to mend, and the verdict."""
    tables = [
        Table([texts(""), texts("")], rows, title)
        for title, rows in _sections(found).items()
        if title != MEND and rows
    ]
    return Page(_verdict(found), _document(found), list(found.problems), (), tables)


def _document(found: Findings) -> dict[str, Any]:
    """All facts as plain values."""
    libraries = {
        row.name: {
            "version": found.libraries[row.name],
            "purpose": row.purpose,
            "install": row.install,
        }
        for row in LIBRARIES
    }
    providers = [
        {
            **asdict(proof),
            "works": proof.problem is None,
            "required": proof.provider in found.required,
        }
        for proof in found.proofs
    ]
    return {
        "onnxcp": __version__,
        "machine": asdict(found.machine),
        "nvidia": asdict(found.nvidia),
        "onnxruntime": asdict(found.installed),
        "providers": providers,
        "libraries": libraries,
        "problems": found.problems,
        "exit_code": found.exit_code,
    }


def as_text(found: Findings, width: int) -> str:
    """All facts for people: what is there, then what to mend, last the verdict."""
    sections = _sections(found).items()
    shown = ("\n".join((title, *_lines(rows, width))) for title, rows in sections if rows)
    return "\n\n".join((*shown, _verdict(found)))


def _sections(found: Findings) -> dict[str, list[Row]]:
    """Rows of label and text by their heading."""
    return {
        f"onnxcp {__version__}, Python {found.machine.python}": _of_machine(found),
        "ONNX Runtime": list(_of_runtime(found)),
        "Providers, each proven by a Conv": [(p.provider, _state(p, found)) for p in found.proofs],
        "Libraries": list(_of_libraries(found)),
        MEND: [("", text) for text in found.problems],
    }


def _lines(rows: Iterable[Row], width: int) -> Iterator[str]:
    """Rows with what follows a semicolon, mostly what to do, on lines of its own."""
    for label, text in rows:
        start, below = (f"  {label:<{LABEL}}", " " * (2 + LABEL)) if label else ("  - ", "    ")
        cause, *remedies = text.split("; ")
        yield from _wrapped(cause, width, start, below)
        for remedy in remedies:
            yield from _wrapped(remedy, width, f"{below}-> ", f"{below}   ")


def _wrapped(text: str, width: int, start: str, below: str) -> list[str]:
    kept = COMMAND.sub(lambda match: match[0].replace(" ", UNBROKEN), text)
    lines = textwrap.wrap(
        kept,
        width,
        initial_indent=start,
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(UNBROKEN, " ") for line in lines]


def _of_machine(found: Findings) -> list[Row]:
    here = found.machine
    physical = "" if here.physical is None else f"{here.physical} physical, "
    memory = "not told" if here.memory_bytes is None else f"{here.memory_bytes / GIB:.1f} GiB"
    return [
        ("platform", here.platform),
        ("CPU", here.cpu),
        ("vectors", ", ".join(here.vectors) or "not told by this system"),
        ("channels", f"in blocks of {here.channel_block}"),
        ("cores", f"{here.logical} logical, {physical}{here.usable:g} for this process"),
        ("memory", memory),
        *_of_nvidia(found),
    ]


def _of_nvidia(found: Findings) -> Iterator[Row]:
    told = found.nvidia
    for number, gpu in enumerate(told.gpus):
        yield f"GPU {number}", _gpu(gpu)
    if told.problem is not None:
        yield "GPU", told.problem
    if told.cuda is not None:
        served = ".".join(map(str, told.cuda))
        yield "driver", f"{told.driver or 'of NVIDIA'}, serves CUDA up to {served}"


def _gpu(gpu: Gpu) -> str:
    return f"{gpu.name}, {gpu.bytes / GIB:.1f} GiB, compute capability {gpu.capability}"


def _of_runtime(found: Findings) -> Iterator[Row]:
    here = found.installed
    names = ", ".join(f"{name} {version}" for name, version in here.builds.items())
    built = f", built for CUDA {here.cuda}" if here.cuda else ""
    yield "build", (names or here.version or "none") + built
    if here.problem is not None:
        yield "state", "does not load, see below"
    loaded = next((p.loaded for p in found.proofs if p.loaded), {})
    if loaded and here.cuda:
        words = (f"{name} {version or 'not found'}" for name, version in loaded.items())
        yield "loaded", ", ".join(words)


def _state(proof: Proof, found: Findings) -> str:
    if proof.problem is None:
        return f"works: {proof.seconds:.2f} s, {proof.difference:.0e} from numpy's result"
    return "FAILED, see below" if proof in found.failed else f"not usable: {proof.problem}"


def _of_libraries(found: Findings) -> Iterator[Row]:
    for row in LIBRARIES:
        version = found.libraries[row.name]
        yield row.name, version or f"missing, for {row.purpose}; {row.install}"


def _verdict(found: Findings) -> str:
    if found.installed.problem is not None:
        return "No model can be run without ONNX Runtime."
    if found.failed:
        return f"Does not work: {', '.join(proof.provider for proof in found.failed)}."
    return f"Works: {', '.join(p.provider for p in found.proofs if p.problem is None)}."
