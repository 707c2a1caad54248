"""Damaged files end in a line and a documented exit code, never in a fault of ours.

Undamaged ones are tried first and are findings where they are refused, so that damage is all that
a refusal can be about. A longer run is `tools/bench/damaged_files.py`.
"""

import pytest
from damaged_files import KINDS, run

NEEDS_TORCH = ("recipe",)
QUICK = [name for name in KINDS if name not in NEEDS_TORCH]


def findings(kinds, seeds):
    return [
        {key: found[key] for key in ("kind", "seed", "file", "command", "code", "text")}
        for row in run(kinds, seeds)
        for found in row["findings"]
    ]


def test_damaged_files_are_refused_or_used():
    assert findings(QUICK, range(2)) == []


@pytest.mark.slow
def test_more_damaged_files_are_refused_or_used():
    assert findings(QUICK, range(1000, 1010)) == []


@pytest.mark.slow
def test_damaged_recipes_of_a_training_are_refused_or_used():
    pytest.importorskip("torch")
    assert findings(NEEDS_TORCH, range(1000, 1008)) == []
