"""Options in messages: flags on the command line, keywords in Python."""

from dataclasses import dataclass

import pytest

from onnxcp.cli.flags import as_flags
from onnxcp.errors import UsageError, as_keywords

TEXTS = [
    ("<<max_drop=0.7>>: too much", "--max-drop 0.7: too much", "max_drop=0.7: too much"),
    ("give <<data>> or <<rank=a=3>>", "give --data or --rank a=3", "give data or rank=a=3"),
    ("a << b >> c", "a << b >> c", "a << b >> c"),
]


@pytest.mark.parametrize(("text", "flags", "keywords"), TEXTS)
def test_an_option_is_a_flag_on_the_command_line(text, flags, keywords):
    assert as_flags(text) == flags


@pytest.mark.parametrize(("text", "flags", "keywords"), TEXTS)
def test_an_option_is_a_keyword_in_python(text, flags, keywords):
    assert as_keywords(text) == keywords


def test_an_error_says_keywords_and_keeps_its_text():
    error = UsageError("<<jobs=0>>: must be at least 1")
    assert (str(error), error.text) == (
        "jobs=0: must be at least 1",
        "<<jobs=0>>: must be at least 1",
    )


def test_texts_of_a_record_are_changed_at_any_depth():
    @dataclass(frozen=True)
    class Record:
        notes: tuple[str, ...]
        number: int = 1

    assert as_flags(Record(("see <<data>>",))) == Record(("see --data",))
