"""`python -m onnxcp`, which imports nothing from the current folder.

Python puts the current folder first on its path, where a file with the name of a package would be
run in its place. What Python imports to start this module still comes from there, unless started
as `python -P -m onnxcp`.
"""

import sys


def run() -> None:
    """Run the command line; the current folder is not on the import path."""
    folder = "" if sys.flags.safe_path else sys.path.pop(0)  # before anything else is imported
    from importlib.machinery import PathFinder
    from pathlib import Path

    is_source = bool(folder) and Path(folder) in Path(__file__).parents
    if is_source and PathFinder.find_spec("onnxcp") is None:
        sys.path.append(folder)  # the source is run where it lies, and workers must find it
    from onnxcp.cli import main

    main()


if __name__ == "__main__":
    run()
