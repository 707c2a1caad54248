"""The output files of a run: checked before any work, published together or not at all."""
