"""Fits of a model's layers: the statistics they are fitted to, the ranks to try, and the store."""
