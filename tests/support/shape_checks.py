"""Axes and dtypes in annotations are checked in a function's first calls of every test.

A fit calls the same functions thousands of times with the same shapes, and a check costs ten
times what most of them cost.
"""

import functools
import inspect
from collections import Counter

import jaxtyping

CHECKED_CALLS = 8  # of a function, in each test
calls = Counter()  # by code, which functions made anew at every call of another share


def install(modules):
    """Check the functions of `modules`, which are not imported yet."""
    always = jaxtyping.jaxtyped

    def jaxtyped(*, typechecker):
        return lambda made: first_calls(made, always(typechecker=typechecker))

    jaxtyping.jaxtyped = jaxtyped  # what the hook writes above every function
    jaxtyping.install_import_hook(modules, "beartype.beartype")


def first_calls(made, check):
    """A function that checks itself in its first calls of a test; a class always does."""
    if inspect.isclass(made):
        return check(made)
    checked = functools.cache(lambda: check(made))  # no wrapper is built that is not called

    @functools.wraps(made)
    def run(*given, **named):
        if calls[made.__code__] >= CHECKED_CALLS:
            return made(*given, **named)
        calls[made.__code__] += 1
        return checked()(*given, **named)

    return run
