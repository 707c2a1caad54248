"""All that knows ONNX Runtime: providers, sessions, and the machine they run on."""
