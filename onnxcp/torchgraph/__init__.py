"""ONNX graphs as PyTorch modules, checked against ONNX Runtime."""
