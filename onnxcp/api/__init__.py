"""The Python verbs: what each command does, as a function that takes and returns values.

`onnxcp.optimize` is `api.optimize.optimize`, and so on for every command; `import onnxcp` loads
none of it before it is used. A verb takes models and samples as files or as they are in memory
(`models`, `samples`), keywords named as the command's options, and returns what the command
reports. It prints nothing, and writes nothing outside a temporary folder unless it is told where.
"""
