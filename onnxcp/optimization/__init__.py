"""One run of the main command, from a model to the decision what is written.

Not called `optimize`, nor `verification` called `verify`: `onnxcp.optimize` and `onnxcp.verify`
are functions, and an imported package would take the place of its namesake.
"""
