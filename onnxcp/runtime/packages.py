"""The libraries that onnxcp uses: what each is for, and what installs it.

Whether they are there is asked of the installed packages; nothing is imported. ONNX Runtime
has builds of several names: see `runtime`.
"""

import importlib.metadata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Library:
    """One row of `LIBRARIES`. `extra` is the part of onnxcp that brings it; empty: all do."""

    name: str
    purpose: str
    extra: str = ""

    @property
    def version(self) -> str | None:
        """The installed one; None if it is not there."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def install(self) -> str:
        """The command that brings it."""
        return f"pip install 'onnxcp[{self.extra}]'" if self.extra else "pip install onnxcp"


LIBRARIES = (
    Library("numpy", "arrays"),
    Library("onnx", "models"),
    Library("typer", "the command line"),
    Library("rich", "progress bars"),
    Library("scipy", "fits"),
    Library("tensorly", "fits"),
    Library("threadpoolctl", "fits on one thread each"),
    Library("msgspec", "plans, tables and reports as files"),
    Library("filelock", "long runs (<<work_dir>>)"),
    Library("loky", "fits in several processes (<<jobs>>)"),
    Library("pillow", "folders of images as <<data>>"),
    Library("torch", "fine-tuning, <<fit_device=cuda>>", "finetune"),
    Library("optuna", "<<strategy=genetic>>", "search"),
    Library("distributed", "<<cluster>>", "cluster"),
)
