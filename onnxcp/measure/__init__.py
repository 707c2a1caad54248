"""Accuracy and speed of models, with confidence intervals, and whether they decide a budget."""
