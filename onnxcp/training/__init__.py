"""Distillation of rewritten models from the original, in float or with simulated int8 rounding."""
