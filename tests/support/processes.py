"""What is expected of commands that run as processes of their own."""

INTERRUPTED, WRONG_USE, MISSING = 130, 2, 3


def wait_for(process, phase):
    for line in process.stderr:
        if phase in line:
            return
    raise AssertionError(f"ended before {phase!r}")
