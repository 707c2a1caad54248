"""The import rules of the package, written once, as code."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "onnxcp"
LAYERS = [  # a module imports only from lines above its own, or from its own package
    "errors arrays cores disturbance temporary checksums damage parent missing_kernels chance "
    "plain_fields",
    "named_function",
    "machine libraries images labels archives feed_functions sample_roles shrinkage atomic_write",
    "runtime",
    "providers",
    "stopwatch",
    "conv tensors escape progress places seeds ladder scheme mixing operators",
    "chains constants nested shapes preprocess metadata metrics onnx_test_data data_dependent",
    "products framing metric_choice whole_set",
    "layers",
    "external samples repairs",
    "acceptance subnormals data_names by_sample image_folders stored_arrays synthetic",
    "publishing stacked",
    "forms files sites data sessions environment benchmark plan reservation",
    "stored reasons time_budget",
    "tally provenance proof saturation ranges precision shield",
    "noted_roles",
    "activations accuracy rewrite verify search inputs",
    "kept_statistics drifts presets judged expected_inputs",
    "parameters folding dequantised quantizer stems original",
    "equalise correction shortcuts",
    "structure recompose tolerances interface finetune quantize half steps",
    "weights readback narrowing simulation records",
    "context adaptive",
    "latency",
    "store workers table workdir",
    "scheduler interruption",
    "cluster",
    "spread task",
    "fitting",
    "survey straighten",
    "layerwise",
    "surgery",
    "profiling calibration",
    "report",
    "evidence labelled_check",
    "judging lessons",
    "baseline_check",
    "settings rehearsal",
    "doctor deploying",
    "diagnosis",
    "job listing timing comparison curves outcome",
    "baseline fit_pace",
    "timesheet",
    "court decision findings finetuning",
    "tuned",
    "menus sequential pareto",
    "keeping claims some_in_int8 timed_menu",
    "summary",
    "searching school rivals selfcheck",
    "recovery",
    "pipeline",
    "cli",
]
HOMES = {  # the only modules that may import a heavy or a side-effecting library
    "onnx": "external files sites products constants nested shapes chains rewrite context "
    "proof provenance structure readback surgery finetune weights lessons saturation precision "
    "quantize quantizer folding parameters equalise correction half dequantised "
    "narrowing simulation deploying shield shortcuts stems operators repairs acceptance "
    "metadata records layers layerwise subnormals data_names reservation stored judged "
    "data_dependent expected_inputs onnx_test_data",
    "onnx_graphsurgeon": "",  # tests alone, as an oracle
    "jaxtyping": "arrays",
    "tensorly": "forms",
    "scipy": "accuracy activations forms sequential ladder task",
    "loky": "workers",
    "threadpoolctl": "task workers",
    "distributed": "scheduler",
    "PIL": "images",
    "onnxruntime": "runtime quantizer half",
    "torch": "finetune forms",
    "optuna": "search",
    "matplotlib": "report",
    "jinja2": "report",
    "typer": "cli",
    "rich": "cli",
}
MODULES = [
    p for p in sorted(PACKAGE.rglob("*.py")) if p.parent != PACKAGE or not p.name.startswith("__")
]


def layer(name):
    return next(i for i, line in enumerate(LAYERS) if name in line.split())


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported_modules(path):
    """`from onnxcp import files` names a module too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "onnxcp":
            yield from (f"onnxcp.{alias.name}" for alias in node.names if alias.name[0] != "_")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    me = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in (*imports(path), *imported_modules(path)):
        top, _, rest = module.partition(".")
        other = rest.split(".")[0]
        if top == "onnxcp" and other:
            assert other == me or layer(other) < layer(me), f"{me} must not import {module}"
        elif top in HOMES:
            assert me in HOMES[top].split(), f"{top} is imported only by {HOMES[top]}, not by {me}"


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, onnxcp; heavy = {'torch', 'onnxruntime', 'typer', 'rich', 'matplotlib'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_help_of_no_command_loads_numerics():
    code = (
        "import sys; from typer.testing import CliRunner; from onnxcp.cli import app;"
        "names = [c.callback.__name__ for c in app.registered_commands];"
        "assert 'doctor' in names;"
        "assert not any(CliRunner().invoke(app, [n, '--help']).exit_code for n in names);"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'torch', 'tensorly'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
