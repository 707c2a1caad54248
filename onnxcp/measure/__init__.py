"""Accuracy and speed of models, with intervals, and whether these decide a budget."""
