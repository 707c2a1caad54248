"""What the source is made of, as JSON: files, functions, import layers, docstrings, duplicates.

    python tools/measure_code.py [onnxcp]

`duplicates` counts pairs of places with six or more equal lines in a row, blank lines, comments,
imports and docstrings left out.
"""

import ast
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WINDOW = 6  # lines
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Measure the package named on the command line."""
    package = Path(sys.argv[1] if len(sys.argv) > 1 else "onnxcp")
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    sizes = {path: text.count("\n") for path, text in sources.items()}
    functions = [(path, node) for path, tree in trees.items() for node in _functions(tree)]
    lengths = [_length(node) for _, node in functions]
    document = {
        "files": len(sources),
        "lines": sum(sizes.values()),
        "packages": len({p.parent for p in sources if p.parent.parent == package}),
        "root_files": sum(path.parent == package for path in sources),
        "import_layers": len(_layers(package, trees)),
        "file_lines": _spread(list(sizes.values())),
        "files_over_300": [_where(p, package) for p, size in sizes.items() if size > 300],
        "function_lines": _spread(lengths),
        "functions_over_60": _named(functions, package, lambda node: _length(node) > 60),
        "parameters": _spread([_parameters(node) for _, node in functions]),
        "functions_over_8_parameters": _named(
            functions, package, lambda node: _parameters(node) > 8
        ),
        "public_docstrings": _documented(trees),
        "duplicates": _duplicates(trees, sources),
    }
    print(json.dumps(document, indent=2))


def _functions(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def _length(node: Function) -> int:
    """Lines from `def` to the end, the docstring left out."""
    first, last = node.body[0], node.end_lineno or node.lineno
    documented = ast.get_docstring(node) is not None
    text = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return last - node.lineno + 1 - text


def _parameters(node: Function) -> int:
    given = node.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def _spread(values: Sequence[int]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p90": ordered[int(0.9 * (len(ordered) - 1))],
        "max": ordered[-1],
    }


def _where(path: Path, package: Path) -> str:
    return path.relative_to(package).as_posix()


def _named(functions: Sequence[tuple[Path, Function]], package: Path, is_shown: Any) -> list[str]:
    return [f"{_where(p, package)}:{node.name}" for p, node in functions if is_shown(node)]


def _documented(trees: dict[Path, ast.Module]) -> dict[str, float]:
    """Public modules, classes, and functions at the top of a module, that have a docstring."""
    total, having = 0, 0
    for tree in trees.values():
        tops = [n for n in tree.body if isinstance(n, Function | ast.ClassDef)]
        for node in (tree, *(n for n in tops if not n.name.startswith("_"))):
            total += 1
            having += ast.get_docstring(node) is not None
    return {"of": total, "percent": round(100 * having / total, 1)}


def _layers(package: Path, trees: dict[Path, ast.Module]) -> list[set[str]]:
    """Packages and root modules in rows, each above all it imports; a cycle is one row."""
    below: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        me = _room(path.relative_to(package).parts)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name):
                for alias in node.names:
                    parts = [*(node.module or "").split(".")[1:], alias.name]
                    other = _room(parts)
                    if other and other != me:
                        below[me].add(other)
        below[me] |= set()
    rows: list[set[str]] = []
    left = set(below)
    while left:
        row = {room for room in left if not below[room] & left} or set(left)
        rows.append(row)
        left -= row
    return rows


def _room(parts: Sequence[str]) -> str:
    """`runtime.ort`, which knows nothing of ours, counts as a room of its own."""
    name = parts[0].removesuffix(".py")
    second = parts[1].removesuffix(".py") if len(parts) > 1 else ""
    return f"{name}.{second}" if (name, second) == ("runtime", "ort") else name


def _duplicates(trees: dict[Path, ast.Module], sources: dict[Path, str]) -> int:
    """Pairs of places with `WINDOW` or more equal lines in a row; a longer run counts once."""
    places: dict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    for path, text in sources.items():
        lines = _code(trees[path], text)
        for at in range(len(lines) - WINDOW + 1):
            places[tuple(lines[at : at + WINDOW])].append((path, at))
    pairs = {
        (one, other)
        for found in places.values()
        for number, one in enumerate(found)
        for other in found[number + 1 :]
    }
    return sum(((a, i - 1), (b, j - 1)) not in pairs for (a, i), (b, j) in pairs)


def _code(tree: ast.Module, text: str) -> list[str]:
    left_out = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [line.partition("  # ")[0].strip() for line in text.splitlines()]
    kept = [line for number, line in enumerate(lines, 1) if number not in left_out]
    return [line for line in kept if line and not line.startswith("#")]


if __name__ == "__main__":
    main()
