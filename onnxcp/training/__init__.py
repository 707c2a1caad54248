"""Distillation of rewritten models, with int8 rounding where that is asked for."""
