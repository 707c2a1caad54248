"""Fits of a model's layers: what they are fitted to, how ranks are chosen for trial, and where
results are stored.
"""
