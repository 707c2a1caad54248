"""Whether two models are the same, and where they are not."""
