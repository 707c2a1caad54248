"""A machine that only times chains needs numpy, onnx, ONNX Runtime and what prints: on a small
target nothing else may be there to install."""

import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ROOT / "models/digits.onnx"
PACKAGES = ("numpy", "onnx", "onnxruntime", "typer", "msgspec")  # what is asked of pip
ALLOWED = {  # these and what comes with them, by the names they are imported under
    *("numpy", "onnx", "google", "ml_dtypes", "typing_extensions"),
    *("onnxruntime", "flatbuffers", "packaging"),
    *("fusion_utils", "onnx_model", "float16"),  # parts of onnxruntime, on a path that it adds
    *("typer", "click", "shellingham", "annotated_doc", "pydantic", "pydantic_core"),
    *("annotated_types", "typing_inspection"),
    *("rich", "pygments", "markdown_it", "mdurl"),
    *("onnxcp", "msgspec"),
}
ABSENT = (
    *("scipy", "tensorly", "torch", "threadpoolctl", "loky", "PIL", "filelock"),  # for optimize
    *("jaxtyping", "beartype", "onnx_graphsurgeon"),  # developers do
)
MODULES = (
    "api.doctor",
    "arrays",
    "chain",
    "cli",
    "data.preprocess",
    "data.roles",
    "data.sources",
    "data.specs",
    "errors",
    "forms",
    "graph.chains",
    "graph.constants",
    "graph.external_data",
    "graph.input_specs",
    "graph.io",
    "graph.nested",
    "graph.products",
    "graph.shapes",
    "graph.sites",
    "graph.splice",
    "latency.candidates",
    "latency.context",
    "latency.table",
    "latency.tabulate",
    "measure.timing",
    "plan",
    "progress",
    "quantization.convert",
    "quantization.dequantize",
    "quantization.float16",
    "quantization.static",
    "report.doctor",
    "runtime.environment",
    "runtime.machine",
    "runtime.packages",
    "runtime.probe",
    "runtime.providers",
    "runtime.sessions",
    "runtime.survey",
    "seeds",
    "verification.attribution",
)
COMMANDS = (  # that work there, run in an empty folder
    ("--help",),
    ("inspect", str(MODEL)),
    ("verify", str(MODEL), str(MODEL), "--data", str(MODEL.with_suffix(".npz"))),
    ("benchmark", str(MODEL), str(MODEL), "--threads", "1", "--duration", "0.2"),
    (
        *("benchmark", str(MODEL), "--precision", "int8", "--threads", "1", "--duration", "0.1"),
        *("--data", str(MODEL.with_suffix(".npz"))),
    ),
    ("profile", str(MODEL), "-o", "latency.json", "--threads", "1"),
    ("doctor",),
    ("help", "data"),
)


def only(allowed):
    """Refuse to import what is neither Python's own nor allowed."""
    import sys
    import sysconfig

    sysconfig.get_config_vars()  # reads a module whose name differs between machines

    class Refusing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] not in {*allowed, *sys.stdlib_module_names}:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Refusing)


def on_a_target(model, modules, absent):
    """Every module is imported, and every form's chains run in place of a model's sites."""
    import importlib
    import pathlib

    import numpy as np

    for name in modules:
        importlib.import_module(f"onnxcp.{name}")
    for name in absent:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        raise AssertionError(f"{name} is there")

    from onnxcp.data.roles import Sources, prepare
    from onnxcp.forms import FORMS
    from onnxcp.forms.grouped import drawn
    from onnxcp.graph import io
    from onnxcp.graph.splice import rewrite
    from onnxcp.runtime.providers import Target
    from onnxcp.runtime.sessions import open_runner
    from onnxcp.runtime.survey import survey

    loaded, target = io.load(pathlib.Path(model)), Target.named("cpu", threads=1)
    inputs, rng = prepare(loaded.inputs, Sources()), np.random.default_rng(0)
    sites, _ = survey(loaded, inputs.shapes, target, inputs.timed_feeds)
    for form in FORMS.values():
        taken = [s for s in sites if form.refuses(s.part) is None and form.largest(s.part) > 4]
        chains = {
            s.name: drawn(form, s.shape, s.group, 4 * s.group, s.geometry, rng) for s in taken
        }
        made = rewrite(loaded.proto, chains, sites, metadata={}).proto
        assert len(made.graph.node) > len(loaded.proto.graph.node), form.name
        results = open_runner(made.SerializeToString(), target)(inputs.timed_feeds)
        assert all(np.isfinite(r).all() for r in results), form.name


PROGRAM = f"{inspect.getsource(on_a_target)}\non_a_target({str(MODEL)!r}, {MODULES}, {ABSENT})"
GUARD = f"{inspect.getsource(only)}\nonly({ALLOWED})\n"


def run(folder, *command, **more):
    """Exit code and all output of a command, run in a folder."""
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    ended = subprocess.run(command, cwd=folder, env=own | more, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


def guarded(folder, code):
    """Code run in this environment, with everything else refused."""
    return run(folder, sys.executable, "-c", GUARD + code, PYTHONPATH=str(ROOT))


def guarded_command(folder, *arguments):
    code = f"import sys; from onnxcp.cli import main; sys.argv[1:] = {arguments}; main()"
    return guarded(folder, code)


def test_chains_are_made_and_run_without_the_other_libraries(tmp_path):
    code, output = guarded(tmp_path, PROGRAM)
    assert code == 0, output


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda a: a[0])
def test_commands_of_a_target_work_without_the_other_libraries(arguments, tmp_path):
    code, output = guarded_command(tmp_path, *arguments)
    assert code == 0, output


def test_a_command_that_needs_more_says_so(tmp_path):
    code, output = guarded_command(tmp_path, "optimize", str(MODEL), "-o", "out.onnx")
    assert code == 3
    assert output.startswith("error: ")
    assert "is not installed; this command needs all of: pip install" in output


def test_the_manual_names_these_packages():
    page = (ROOT / "onnxcp/docs/providers.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"of the packages only ([^.]+)\.", " ".join(page.split()))
    assert set(re.split(", | and ", listed)) == {*PACKAGES}


@pytest.mark.slow
def test_four_packages_of_an_index_are_enough(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "onnxcp", tmp_path / "onnxcp")
    wanted = ("-c", str(ROOT / "constraints.txt"), *PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        installed = pathlib.Path(folder) / "venv/bin"
        python = str(installed / "python")
        for step in (
            (sys.executable, "-m", "venv", str(installed.parent)),
            (python, "-m", "pip", "install", "--quiet", *wanted),
            (python, "-m", "pip", "install", "--quiet", "--no-deps", str(tmp_path)),
            (python, "-I", "-c", PROGRAM),
            *((str(installed / "onnxcp"), *arguments) for arguments in COMMANDS),
        ):
            code, output = run(folder, *step)
            assert code == 0, output
