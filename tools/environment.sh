# Sourced by tools/demo and tools/check: a virtual environment in .venv with onnxcp in it.
# Installs once; again when pyproject.toml or constraints.txt changed.
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "onnxcp needs Python 3.11 or later; set PYTHON to one, e.g. PYTHON=python3.12" >&2
    exit 2
}
stamp=.venv/installed-from
if ! cat pyproject.toml constraints.txt | cmp -s - "$stamp"; then
    echo "installing into .venv ..." >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,finetune,dev]'
    cat pyproject.toml constraints.txt > "$stamp"
fi
PATH="$PWD/.venv/bin:$PATH"
