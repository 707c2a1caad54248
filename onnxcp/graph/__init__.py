"""ONNX models: reading, searching, changing and writing. No decompositions, no runs of models."""
