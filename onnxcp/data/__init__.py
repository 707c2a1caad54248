"""Samples: where they come from, how they are preprocessed, and what each of them is used for."""
