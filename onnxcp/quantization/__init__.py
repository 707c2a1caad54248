"""Conversion of models to int8 and float16."""
