"""Runs that are killed: is the output whole, is the input untouched, does a resumed run write the
same bytes, and is anything left behind? Prints JSON, and every kill to stderr as it is done.

    python tools/bench/kills.py --kills 25

Half of the kills come at a random time, half before a random change of a file or folder, with a
second run in turn that replaces an older output. What is not as it should be is listed.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COUNTING = """
import os, signal, sys
calls, last = 0, int(sys.argv.pop(1))
def counted(real):
    def wrapped(*given, **named):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    return wrapped
for name in ("link", "unlink", "rename", "replace", "mkdir", "rmdir", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
import atexit
atexit.register(lambda: print(f"calls {calls}", file=sys.stderr))
from onnxcp.cli import main
main()
"""
LIMIT = 600.0  # seconds that a run may take


@dataclass(frozen=True, slots=True)
class Kill:
    """One run that was killed, and what a later one made of it."""

    how: str
    overwrites: bool
    was_killed: bool
    output_is_whole: bool
    inputs_are_untouched: bool
    resumed_exit_code: int
    same_bytes: bool
    left_over: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        return (
            self.output_is_whole
            and self.inputs_are_untouched
            and self.resumed_exit_code == 0
            and self.same_bytes
            and not self.left_over
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """A run that nobody kills: what it takes, what it writes, and how often it changes files."""

    seconds: float
    calls: int
    written: dict[str, str]
    table: Path


def command(table: Path, jobs: int, *more: str) -> list[str]:
    chosen = ["--include", "block/*", "--form", "cp3", "--threads", "1", "--jobs", str(jobs)]
    data = ["--data", "d.npz", "--max-drop", "0.05", "--iterations", "8"]
    files = ["-o", "o.onnx", "--report", "r.md", "--latency", str(table), "--work-dir", "work"]
    return ["optimize", "m.onnx", *chosen, *data, *files, "--quiet", *more]


def run(folder: Path, arguments: list[str], last: int = 0, after: float = LIMIT) -> tuple[int, str]:
    """The exit code and standard error of a run, which is killed before its change of files
    number `last`, or `after` so many seconds."""
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING, str(last), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        if process.stderr is not None:  # workers, which end a little later, hold its other end
            process.stderr.close()
        process.wait()
        said = ""
    return process.returncode, said


def made(folder: Path) -> Path:
    """A folder with a model, its samples and a place for temporary files."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    shutil.copy(ROOT / "models/digits.onnx", folder / "m.onnx")
    shutil.copy(ROOT / "models/digits.npz", folder / "d.npz")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """Of what a run reads and writes, but for the report, in which times are."""
    names = ("m.onnx", "d.npz", "o.onnx", "o.plan.json", "o.onnx.data")
    files = [folder / name for name in names if (folder / name).exists()]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def reference(folder: Path, jobs: int) -> Reference:
    table = folder / "latency.json"
    made(folder)
    code, said = run(folder, ["profile", "m.onnx", "-o", str(table), "--threads", "1", "--quiet"])
    assert code == 0, said
    begun = time.monotonic()
    code, said = run(folder, command(table, jobs))
    assert code == 0, said
    calls = int(said.strip().splitlines()[-1].removeprefix("calls "))
    return Reference(time.monotonic() - begun, calls, hashes(folder), table)


def killed(folder: Path, known: Reference, number: int, jobs: int, rng: random.Random) -> Kill:
    made(folder)
    overwrites = number // 2 % 2 == 1
    arguments = command(known.table, jobs, *(["--overwrite"] if overwrites else []))
    if overwrites:
        for name in ("o.onnx", "o.plan.json", "r.md"):
            (folder / name).write_text("old")
    before = hashes(folder)
    last, after = 0, rng.uniform(0.0, 1.0) * known.seconds
    if number % 2:
        last, after = rng.randint(1, known.calls), LIMIT
    code, _ = run(folder, arguments, last, after)
    halfway = hashes(folder).get("o.onnx")
    resumed, _ = run(folder, [*arguments, *_more(folder, known)])
    finished = hashes(folder)
    return Kill(
        f"before change {last} of {known.calls}" if last else f"after {after:.1f} s",
        overwrites,
        code == -signal.SIGKILL,
        halfway in (before.get("o.onnx"), known.written["o.onnx"]),
        all(finished[name] == before[name] for name in ("m.onnx", "d.npz")),
        resumed,
        finished == known.written,
        left_over(folder),
    )


def _more(folder: Path, known: Reference) -> list[str]:
    """What the command that goes on needs: no --resume where nothing was begun, --overwrite
    where the killed run had come to its end."""
    more = ["--resume"] if (folder / "work" / "run.json").exists() else []
    is_done = hashes(folder).get("o.onnx") == known.written["o.onnx"]
    return [*more, "--overwrite"] if is_done else more


def left_over(folder: Path) -> tuple[str, ...]:
    wanted = {"m.onnx", "d.npz", "o.onnx", "o.plan.json", "r.md", "work", "tmp"}
    found = [path.name for path in folder.iterdir() if path.name not in wanted]
    found += [f"tmp/{path.name}" for path in (folder / "tmp").iterdir() if "onnxcp-" in path.name]
    found += [str(p.relative_to(folder)) for p in folder.rglob("work/**/.onnxcp-*")]
    return tuple(sorted(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        known = reference(folder / "reference", options.jobs)
        kills = list[Kill]()
        for number in range(options.kills):
            kills.append(killed(folder / "killed", known, number, options.jobs, rng))
            print(json.dumps(asdict(kills[-1])), file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "kills": len(kills),
                "were_killed": sum(kill.was_killed for kill in kills),
                "differences": sum(not (k.same_bytes and k.output_is_whole) for k in kills),
                "inputs_touched": sum(not kill.inputs_are_untouched for kill in kills),
                "left_over_files": sum(len(kill.left_over) for kill in kills),
                "wrong": [asdict(kill) for kill in kills if not kill.is_right],
                "all": [kill.how for kill in kills],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
