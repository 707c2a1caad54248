"""PyTorch implementations of ONNX operators; each is a row of `table.OPERATORS`."""
