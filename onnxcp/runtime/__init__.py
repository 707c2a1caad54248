"""ONNX Runtime: execution providers, sessions, and the machine they run on."""
