# Sourced by tools/demo and tools/check with `extras` set: onnxcp and those extras in .venv.
# Installs once, and again when pyproject.toml, constraints.txt or the extras change.
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "onnxcp needs Python 3.11 or later; set PYTHON to one, e.g. PYTHON=python3.12" >&2
    exit 2
}
wanted() { cat pyproject.toml constraints.txt; }
if ! { wanted | cmp -s - ".venv/has-$extras" || wanted | cmp -s - .venv/has-cpu,dev; }; then
    echo "installing onnxcp[$extras] into .venv ..." >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[$extras]"
    wanted > ".venv/has-$extras"
fi
PATH="$PWD/.venv/bin:$PATH"
