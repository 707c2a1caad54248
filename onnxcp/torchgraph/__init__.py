"""An ONNX graph as a torch module, checked against ONNX Runtime."""
