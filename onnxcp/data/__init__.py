"""Samples: their sources, their preprocessing, and what each of them is used for."""
