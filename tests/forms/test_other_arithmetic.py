"""Laws of the numerics on processors that round otherwise: linear algebra without AVX and FMA, as
an old machine has it, and numpy without the vector instructions of this one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LAWS = (
    "recovered_in_any_order or tkd_with_bases_recovers "
    "or cancel or limit_of_its_rank or computes_the_same or needs_no_size"
)
FILES = (
    "test_forms.py",
    "test_odd_kernels.py",
    "../graph/test_shortcuts.py",
    "../graph/test_sites.py",
)


def vector_instructions():
    """What numpy found here beyond its baseline, and can do without."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return " ".join(found)


def test_laws_hold_with_other_instructions():
    """In a process of its own: instructions are chosen where numpy is loaded."""
    other = {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": vector_instructions()}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", LAWS, *FILES],
        cwd=HERE,
        env=os.environ | other,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert " passed" in ended.stdout or "100%" in ended.stdout
