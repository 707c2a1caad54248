"""The files that a run writes: reserved before any work, published whole or not at all."""
