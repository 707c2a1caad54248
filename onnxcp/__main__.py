"""`python -m onnxcp`, which imports nothing from the current folder: Python puts that first on its
path, where a file called as a package would be run in its place. (What Python itself imports to
get here it takes from there, too: `python -P -m onnxcp` keeps it from that.)"""

import sys


def run() -> None:
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
