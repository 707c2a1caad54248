"""A form is added by one class and one row; the laws run over it without a change."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import test_forms

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "pytest", "-p", "thin_form", "-k", "thin", "-rp")


def test_the_laws_of_forms_hold_for_a_form_added_by_one_class_and_one_row():
    """In a process of its own: laws are collected once, from the table as it is then."""
    run = subprocess.run([*COMMAND, "test_forms.py"], cwd=HERE, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    laws = {name for name, test in inspect.getmembers(test_forms) if _is_law(test)}
    assert laws
    assert laws <= set(re.findall(r"^PASSED .*::(\w+)\[.*thin\]$", run.stdout, re.MULTILINE))


def _is_law(test):
    return any(mark == test_forms.ALL_FORMS.mark for mark in getattr(test, "pytestmark", ()))
