"""Every option once: its name, type, default and help, and the group that it belongs to.

A group is a frozen dataclass. Its fields are the command line's flags and the keywords of
`import onnxcp`; `option` says how a field is described, `table` what it may choose from.
"""
