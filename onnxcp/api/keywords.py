"""Keywords of the verbs, turned into the groups of options that the commands have, too.

Names, defaults, help and refusals are those of the groups. A keyword takes what is natural in
Python where the command line has a text: a number for `max_drop`, a mapping for `rank`, one name
in place of a tuple of names. None is as good as not given.
"""

import difflib
import functools
import inspect
import os
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from onnxcp.errors import UsageError, as_keywords
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.duration import DurationOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.option import Described, Group, Some, build, choices_of, options_of
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.tolerance import ToleranceOptions
from onnxcp.options.training import TrainingOptions

GROUPS: tuple[type[Group], ...] = (
    DataOptions,
    BudgetOptions,
    PlanOptions,
    TargetOptions,
    DurationOptions,
    FitOptions,
    TrainingOptions,
    ToleranceOptions,
    RunOptions,
)
PAIRS = {  # keywords that a mapping may be given for, and what stands between key and value
    "input_shape": ":",
    "provider_option": "=",
    "rank": "=",
    "rtol": ":",
    "atol": ":",
    "check_error_stat": ":",
}
WORDS = {bool: "True or False", int: "a whole number", float: "a number", Path: "a path"}

OWN = re.compile(r"^ {4}(\w+(?:, \w+)*):", re.MULTILINE)  # keywords that a docstring explains

PROGRESS = "    progress: called with a phase, how much of it is done, and of how much."

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Value = TypeVar("Value")


def verb(
    *first: type[Group],
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """The function with keywords checked by name before anything is done: a TypeError names the
    nearest. Its signature shows their defaults, and its documentation their help; of an option
    in two groups those of a group that comes `first`."""

    def decorated(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        keywords = _keywords(function)
        allowed = [*(p.name for p in own), *keywords]

        @functools.wraps(function)
        def call(*args: Parameters.args, **given: Parameters.kwargs) -> Result:
            for name in given:
                if name not in allowed:
                    raise TypeError(_unknown(function.__name__, name, allowed))
            return function(*args, **given)

        known = {o.name: o for group in (*reversed(GROUPS), *first) for o in options_of(group)}
        made = [*own, *(_parameter(name, known.get(name)) for name in keywords)]
        call.__signature__ = signature.replace(parameters=made)  # type: ignore[attr-defined]
        call.__doc__ = _documented(inspect.getdoc(function) or "", allowed, known)
        return call

    return decorated


def _keywords(function: Callable[..., object]) -> list[str]:
    """The keywords that a verb takes beside its parameters: those of `**options`."""
    kinds = get_args(function.__annotations__.get("options"))
    return list(get_type_hints(kinds[0])) if kinds else []


def _unknown(verb: str, name: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; see help(onnxcp.{verb})"
    return f"{verb}() got an unexpected keyword argument {name!r}{hint}"


def _parameter(name: str, option: Described | None) -> inspect.Parameter:
    default = None if option is None else option.default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)


def _documented(text: str, keywords: Iterable[str], known: Mapping[str, Described]) -> str:
    """A verb's documentation with the help that the command has of the keywords which it does
    not explain itself."""
    own = {name for line in OWN.findall(text) for name in line.split(", ")}
    others = [known[name] for name in keywords if name not in own and name in known]
    lines = [*map(_help, others), *([PROGRESS] if "progress" in keywords else [])]
    return "\n".join([text, "", "As the command's options:", *lines]) if lines else text


def _help(described: Described) -> str:
    told = described.option.help.replace("{choices}", ", ".join(choices_of(described.option)))
    line = f"{described.name}: {as_keywords(told).removesuffix(' Repeatable.')}"
    return textwrap.fill(line, 96, initial_indent="    ", subsequent_indent="        ")


def grouped(group: type[Some], given: Mapping[str, Any]) -> Some:
    """A group of options from the keywords that it knows, among all that were given.

    Raises:
        UsageError: a value of the wrong kind, or one that the group refuses.
    """
    found = {o.name: o for o in options_of(group) if given.get(o.name) is not None}
    return build(group, {name: converted(o, given[name]) for name, o in found.items()})


def single(name: str, kind: type[Value], value: Any) -> Value | None:
    """The value of a keyword that is in no group; None where none is given.

    Raises:
        UsageError: a value of another kind.
    """
    return None if value is None else cast("Value", _one(name, (kind,), value))


def converted(option: Described, value: Any) -> Any:
    """A value as the option has it.

    Raises:
        UsageError: it is of another kind, or below what is allowed.
    """
    if get_origin(option.type) is tuple:
        kind = get_args(option.type)[0]
        return tuple(_one(option.name, (kind,), part) for part in _parts(option, value))
    kinds = get_args(option.type) if _is_union(option.type) else (option.type,)
    made = _one(option.name, kinds, value)
    least = option.option.min
    if least is not None and made < least:
        raise UsageError(f"<<{option.name}={value}>>: must be at least {least:g}")
    return made


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _parts(option: Described, value: Any) -> Sequence[Any]:
    """What a keyword that takes several was given: a mapping, one, or several."""
    if isinstance(value, Mapping):
        if option.name not in PAIRS:
            raise UsageError(f"<<{option.name}>>: takes names, not a mapping")
        return [_pair(key, PAIRS[option.name], part) for key, part in value.items()]
    if isinstance(value, str) and option.option.is_list:
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable):
        return [str(value) if _is_number(value) else value]
    return list(value)


def _pair(key: object, between: str, value: Any) -> str:
    """A key and its value as an option has them; sizes as 1x3x224x224."""
    is_several = isinstance(value, Iterable) and not isinstance(value, str)
    return f"{key}{between}{'x'.join(map(str, value)) if is_several else value}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _one(name: str, kinds: Sequence[Any], value: Any) -> Any:
    """A value as one of some kinds."""
    known = [kind for kind in kinds if kind is not type(None)]
    for kind in known:
        is_fit, made = _as(kind, value)
        if is_fit:
            return made
    wanted = " or ".join(WORDS.get(kind, "a text") for kind in known if isinstance(kind, type))
    raise UsageError(f"<<{name}={value!r}>>: give {wanted}")


def _as(kind: Any, value: Any) -> tuple[bool, Any]:
    """Whether a value is of a kind, and the value as that."""
    if kind is bool:
        return isinstance(value, bool | np.bool_), value
    if kind is int:
        is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return is_whole, value if not is_whole else int(value)
    if kind is float:
        return _is_number(value), float(value) if _is_number(value) else value
    if kind is Path:
        is_path = isinstance(value, str | os.PathLike)
        return is_path, Path(value) if is_path else value
    if kind is str:
        is_text = isinstance(value, str | os.PathLike)
        return is_text, os.fspath(cast("str", value)) if is_text else value
    return callable(value), value
