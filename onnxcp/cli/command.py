"""From a function whose parameters are groups of options to a command with all their flags.

    @command
    def verify(reference: Path, data: Annotated[DataOptions, Only("data", "samples")]) -> None: ...

A parameter is a group, of which `Only` names the options that the command takes; one `Option` of
its own; an `Ending`, which the command may tell how it ends; or anything that typer knows.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from onnxcp.cli.console import Ending, errors_as_lines
from onnxcp.cli.flags import as_flags, flag
from onnxcp.options.option import (
    Described,
    Option,
    build,
    choices_of,
    described,
    options_of,
)


@dataclass(frozen=True)
class Only:
    """The options of a group that a command takes, in this order; the others keep their
    defaults."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True, slots=True)
class Part:
    """One parameter of the function: its name, its group if it is one, and its flags."""

    name: str
    group: Any | None
    options: tuple[Described, ...]

    def value(self, values: Mapping[str, Any], context: typer.Context) -> Any:
        """What the function is called with."""
        if self.group is None:
            return _typed(self.options[0], values[self.name])
        given = {o.name: _typed(o, values[o.name]) for o in self.options if _is_said(context, o)}
        return build(self.group, given)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as typer takes it. It ends with one line and the documented exit code,
    whatever goes wrong in it or in its options."""
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    parts = {name: _part(parameters[name], hints[name]) for name in parameters}
    ending = next((name for name in parameters if hints[name] is Ending), None)

    @functools.wraps(function)
    def run(context: typer.Context, **values: Any) -> None:
        verbose = values.get("verbose", 0)
        with errors_as_lines(verbose) as end:
            arguments = {
                name: values[name] if part is None else part.value(values, context)
                for name, part in parts.items()
                if name != ending
            }
            function(**arguments, **({} if ending is None else {ending: end}))

    made = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(
            p
            for name in parameters
            if name != ending
            for p in _flags(parameters[name], parts[name])
        ),
    ]
    run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in made}
    return run


def _part(parameter: inspect.Parameter, hint: Any) -> Part | None:
    """None for what typer takes as it is."""
    kind, option = described(hint)
    if option is not None:
        own = Described(parameter.name, kind, parameter.default, option, option.panel)
        return Part(parameter.name, None, (own,))
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not hasattr(kind, "PANEL"):
        return None
    only = next((extra.names for extra in extras if isinstance(extra, Only)), None)
    options = {option.name: option for option in options_of(kind)}
    return Part(parameter.name, kind, tuple(options[name] for name in only or options))


def _flags(parameter: inspect.Parameter, part: Part | None) -> Iterator[inspect.Parameter]:
    if part is None:
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    for one in part.options:
        default = [] if one.default == () else one.default
        yield inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if one.option.is_list and not default else default,
            annotation=Annotated[_flag_type(one), _typer_option(one)],
        )


def _typer_option(one: Described) -> Any:
    option, choices = one.option, choices_of(one.option)
    is_path = Path in (one.type, *get_args(one.type))  # which the shell completes
    return typer.Option(
        *_names(one),
        rich_help_panel=one.panel,
        metavar=option.metavar,
        help=_help(option, choices),
        min=option.min,
        count=option.is_counted,
        show_default=option.shows_default,
        autocompletion=_completion(choices) if choices and not is_path else None,
    )


def _names(one: Described) -> Iterator[str]:
    """`--overwrite`; a switch that may be off says so: `--cuda-graph/--no-cuda-graph`."""
    name = flag(one.name)
    is_switch = bool in (one.type, *get_args(one.type))
    yield f"{name}/{flag(f'no_{one.name}')}" if is_switch and one.default is not False else name
    if one.option.short is not None:
        yield f"-{one.option.short}"


def _help(option: Option, choices: tuple[str, ...]) -> str:
    *most, last = choices or ("",)
    listed = f"{', '.join(most)} or {last}" if most and not option.is_open else ", ".join(choices)
    text: str = as_flags(option.help.replace("{choices}", listed))
    return text.replace("[", "\\[")  # which rich would take for markup


def _completion(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in choices if name.startswith(incomplete)]

    return complete


def _flag_type(one: Described) -> Any:
    """What typer parses: of several types a text, of tuples lists."""
    if one.option.is_list:
        return str | None
    if get_origin(one.type) is tuple:
        return list[get_args(one.type)[0]]  # type: ignore[misc]
    if get_origin(one.type) not in (Union, types.UnionType):
        return one.type
    kinds = get_args(one.type)
    kind = next((k for k in (str, Path, bool, int, float) if k in kinds), str)
    return kind | None if type(None) in kinds else kind


def _typed(one: Described, value: Any) -> Any:
    """A value of typer's as the option has it."""
    if one.option.is_list and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _is_said(context: typer.Context, one: Described) -> bool:
    source = context.get_parameter_source(one.name)
    return source is not None and source.name != "DEFAULT"
