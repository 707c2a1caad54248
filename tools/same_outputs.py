"""Do two checkouts write the same bytes? A guard for changes that should change no result.

    python tools/same_outputs.py BEFORE AFTER --data ../shared/data

Each of BEFORE and AFTER is a checkout of onnxcp; both run with the interpreter of this script.
BEFORE profiles every model once; with that latency table and one seed both optimize it, and
the hashes of the models and plans that they write are compared. The tables that AFTER's `profile`
writes are read by BEFORE, and the other way round. Prints JSON; ends with 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
UNDECIDED = (0, 1)  # exit codes: written, or a clear no


@dataclass(frozen=True, slots=True)
class Case:
    """A model, relative to the data's folder or to the checkout, and the options of its run."""

    name: str
    model: str
    options: tuple[str, ...]
    precision: str = "float32"
    shape: str | None = None  # of the input, where the model leaves it open

    @property
    def common(self) -> tuple[str, ...]:
        """Options of `profile` and `optimize`."""
        given = () if self.shape is None else ("--input-shape", self.shape)
        return ("--threads", "1", "--precision", self.precision, *given)


FEW = ("--samples", "400")
ERROR = ("--max-error", "0.1")
TILE = "input:1x1x128x128"
CASES = (
    Case("digits", "models/digits.onnx", ("--data", "models/digits.npz", "--max-drop", "0.01")),
    Case(
        "resnet20",
        "cifar10/resnet20.onnx",
        ("--data", "cifar10/test.npz", "--preprocess", "cifar10", "--max-drop", "0.02", *FEW),
    ),
    Case(
        "resnet20 in int8",
        "cifar10/resnet20.onnx",
        ("--data", "cifar10/test.npz", "--preprocess", "cifar10", "--max-drop", "0.03", *FEW),
        precision="int8",
    ),
    Case("vdsr", "vdsr/vdsr.onnx", ("--max-error", "0.05"), shape=TILE),
    Case("cifar classifier", "odd/winml_pytorch_cifar_ImageClassifier.onnx", ERROR),
    Case("ultraface", "odd/ultraface_RFB-320.onnx", ERROR),
)


def main() -> None:
    """Compare the two checkouts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    options = parser.parse_args()
    chosen = [case for case in CASES if not options.case or case.name in options.case]
    with tempfile.TemporaryDirectory() as folder:
        checkouts = (options.before.resolve(), options.after.resolve())
        rows = [compared(case, checkouts, options.data.resolve(), Path(folder)) for case in chosen]
    print(json.dumps(rows, indent=2))
    sys.exit(not all(row["same"] for row in rows))


def compared(case: Case, checkouts: tuple[Path, Path], data: Path, folder: Path) -> dict[str, Any]:
    """What both checkouts wrote of a case."""
    print(case.name, file=sys.stderr, flush=True)
    home = folder / case.name.replace(" ", "-")
    home.mkdir()
    model = _found(case.model, checkouts[0], data)
    tables = [home / f"latency-{side}.json" for side in ("before", "after")]
    for checkout, table in zip(checkouts, tables, strict=True):
        called(checkout, home, "profile", str(model), "-o", str(table), *case.common)
    made = [
        written(case, checkout, table, home / f"{number}-{side}", model, data)
        for number, table in enumerate(tables)
        for side, checkout in zip(("before", "after"), checkouts, strict=True)
    ]
    pairs = [made[:2], made[2:]]
    return {
        "case": case.name,
        "same": all(one == other for one, other in pairs),
        "table of before": pairs[0],
        "table of after": pairs[1],
    }


def written(
    case: Case, checkout: Path, table: Path, home: Path, model: Path, data: Path
) -> dict[str, str | int]:
    """Exit code of a run, and the hash of every file it wrote."""
    home.mkdir()
    given = [str(_found(o, checkout, data)) if "/" in o else o for o in case.options]
    code = called(
        checkout,
        home,
        "optimize",
        *(str(model), "-o", str(home / "out.onnx"), "--latency", str(table), "--seed", "0"),
        *(*case.common, "--no-cache", *given),
    )
    files = sorted(path for path in home.iterdir() if path.is_file())
    return {
        "exit code": code,
        **{p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }


def called(checkout: Path, folder: Path, *words: str) -> int:
    """The exit code of a command of a checkout.

    Raises:
        RuntimeError: a code that says neither done nor a clear no.
    """
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(checkout)}
    command: Sequence[str] = (sys.executable, "-m", "onnxcp", *words)
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode not in UNDECIDED:
        raise RuntimeError(f"{checkout}: {' '.join(words)}: {ended.returncode}\n{ended.stderr}")
    return ended.returncode


def _found(path: str, checkout: Path, data: Path) -> Path:
    return checkout / path if path.startswith("models/") else data / path


if __name__ == "__main__":
    main()
