"""Torch implementations of ONNX operators, one row of `table.OPERATORS` each."""
