"""The libraries that onnxcp uses, with their purpose and the command to install them.

Versions come from the metadata of installed packages; nothing is imported. ONNX Runtime has
packages of several names: see `ort.builds`.
"""

import importlib.metadata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Library:
    """One row of `LIBRARIES`; `extra` is onnxcp's extra that installs it, empty for all."""

    name: str
    purpose: str
    extra: str = ""

    @property
    def version(self) -> str | None:
        """The installed version; None if it is not installed."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def install(self) -> str:
        """The command that installs it."""
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
