"""How one option is described, and how a group of them is read.

Option names in texts, here and in messages, stand between `<<` and `>>`: `<<max_drop>>`, or with
a value `<<max_drop=0.7>>`. The command line prints them as flags, the library as keywords.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

GIVEN = "given"  # the field of a group that keeps which options were named


@dataclass(frozen=True, slots=True)
class Option:
    """The help of an option, and what its type does not say.

    `{choices}` in `help` stands for the names that it may take: `choices` holds them, or names
    tables of them as "module:TABLE", which costs no import until they are shown. `is_open` says
    that other values are allowed, too. `short` is a letter for the command line.
    """

    help: str
    metavar: str | None = None
    short: str | None = None
    choices: tuple[str, ...] = ()
    is_open: bool = False
    min: float | None = None
    is_list: bool = False  # a comma separates what is given at once
    is_counted: bool = False  # how often it is given, as -vv
    shows_default: bool = True
    panel: str | None = None  # of the help, where it stands in no group


@dataclass(frozen=True, slots=True)
class Described:
    """An option with its name, type, default and panel of the help."""

    name: str
    type: Any
    default: Any
    option: Option
    panel: str | None


class Group(Protocol):
    """A dataclass of options. `PANEL` is their heading in the help."""

    PANEL: ClassVar[str | None]
    __dataclass_fields__: ClassVar[dict[str, Any]]


Some = TypeVar("Some", bound=Group)


def described(hint: Any) -> tuple[Any, Option | None]:
    """The type and the option of an annotation; None where it describes none."""
    if get_origin(hint) is not Annotated:
        return hint, None
    kind, *extras = get_args(hint)
    return kind, next((extra for extra in extras if isinstance(extra, Option)), None)


@functools.cache
def options_of(group: type[Group]) -> tuple[Described, ...]:
    """The options of a group, in order."""
    return tuple(_described(group))


def _described(group: type[Group]) -> Iterator[Described]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        kind, option = described(hints[field.name])
        if option is not None:
            panel = option.panel or group.PANEL
            yield Described(field.name, kind, field.default, option, panel)


def choices_of(option: Option) -> tuple[str, ...]:
    """The names that an option may take; empty where nothing lists them."""
    names: list[str] = []
    for choice in option.choices:
        module, _, table = choice.partition(":")
        names += [choice] if not table else list(getattr(import_module(module), table))
    return tuple(names)


def values_of(group: Group) -> dict[str, Any]:
    """The values of a group by name, for a class that adds to it."""
    return {field.name: getattr(group, field.name) for field in fields(group)}


def differing(group: Group) -> frozenset[str]:
    """The options of a group that are not as by default."""
    changed = (f.name for f in fields(group) if getattr(group, f.name) != f.default)
    return frozenset(changed)


def build(group: type[Some], given: Mapping[str, Any]) -> Some:
    """A group with the options that were given; a group that keeps their names has them."""
    names = {option.name for option in options_of(group)}
    values = {name: value for name, value in given.items() if name in names}
    if GIVEN in group.__dataclass_fields__:
        values[GIVEN] = frozenset(values)
    return group(**values)
