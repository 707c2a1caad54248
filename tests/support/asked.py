"""Settings of `optimize` from options that stand side by side, for runs that are quick."""

from pathlib import Path

from onnxcp.optimization.settings import Asked, Settings

QUICK = {"threads": 1, "jobs": 1, "iterations": 8}


def settings(model: Path, output: Path, **options: object) -> Settings:
    """Without a `cache` nothing is kept."""
    no_cache = options.get("cache") is None
    return Settings.of(model, output, Asked.of({**QUICK, "no_cache": no_cache, **options}))
