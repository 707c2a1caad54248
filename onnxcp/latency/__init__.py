"""The measured time of every candidate chain, on the target."""
