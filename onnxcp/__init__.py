"""onnxcp: measured faster CNNs in ONNX, within an accuracy budget."""

__version__ = "0.1.0"
