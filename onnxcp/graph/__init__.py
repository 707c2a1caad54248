"""ONNX models: read, searched, changed and written. Knows no decomposition and runs no model."""
