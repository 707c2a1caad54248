"""The import rules of the package, written once, as code."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "onnxcp"
LAYERS = [  # a package imports only from lines above its own, and from itself
    "errors escape progress arrays seeds",
    "storage runtime.ort results",
    "options",
    "plan chain words",
    "graph search forms",
    "data runtime",
    "quantization cluster artifacts",
    "measure",
    "verification fitting",
    "torchgraph latency",
    "training",
    "optimization",
    "report",
    "api",
    "cli",
]
HOMES = {  # the only packages that may import a heavy or a side-effecting library
    "onnx": "graph quantization latency verification training torchgraph runtime measure data "
    "artifacts optimization api",
    "onnx_graphsurgeon": "api",  # tests too, as an oracle
    "jaxtyping": "arrays",
    "tensorly": "forms",
    "scipy": "measure fitting forms",
    "loky": "cluster",
    "msgspec": "storage",
    "threadpoolctl": "fitting cluster",
    "distributed": "cluster",
    "PIL": "data",
    "onnxruntime": "runtime quantization",
    "torch": "training torchgraph forms",
    "optuna": "search",
    "matplotlib": "report",
    "jinja2": "report",
    "typer": "cli",
    "rich": "cli",
}
MODULES = [
    p for p in sorted(PACKAGE.rglob("*.py")) if p.parent != PACKAGE or not p.name.startswith("__")
]


def room(module):
    """The row that a module stands in: under its own name, or its package's."""
    return module if any(module in line.split() for line in LAYERS) else module.split(".")[0]


def layer(module):
    name = room(module)
    return next(i for i, line in enumerate(LAYERS) if name in line.split())


def imports(path):
    """Modules by their full names; `from onnxcp.graph import io` names a module too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (n for n in named if is_module(n))
            if not all(map(is_module, named)):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_module(name):
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    me = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for module in imports(path):
        top, _, other = module.partition(".")
        if top == "onnxcp" and other:
            is_below = room(other) == room(me) or layer(other) < layer(me)
            assert is_below, f"{me} must not import {module}"
        elif top in HOMES:
            assert me.split(".")[0] in HOMES[top].split(), (
                f"{top}: only in {HOMES[top]}, not in {me}"
            )


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, onnxcp; heavy = {'numpy', 'onnx', 'torch', 'onnxruntime', 'typer', 'rich'};"
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
