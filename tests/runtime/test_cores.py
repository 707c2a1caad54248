"""How many cores a process may use: what it is pinned to, and the quotas of its control groups."""

import os
import pathlib
import subprocess
import sys

import pytest

from onnxcp.runtime.cores import AFFINITY, GIVEN, MACHINE, QUOTA, WORDS, quota, usable
from onnxcp.runtime.providers import Target

EVERY = range(os.cpu_count() or 1)
ROOT = pathlib.Path(__file__).parents[2]


def tree(root, **files):
    """Files below a folder; `__` stands for a slash."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def groups(root, own, files):
    """A /proc and /sys in which the process is in a group of these."""
    return tree(
        root, **{"proc/self/cgroup": own, **{f"sys/fs/cgroup/{n}": files[n] for n in files}}
    )


V2 = {
    "its own": ("0::/app\n", {"app/cpu.max": "200000 100000\n", "cpu.max": "max 100000\n"}, 2.0),
    "one around it": (
        "0::/a/b\n",
        {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000"},
        1.5,
    ),
    "the least": (
        "0::/a/b\n",
        {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000"},
        3.0,
    ),
    "a namespace's root": ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
    "of a container whose group is outside": ("0::/../x\n", {"cpu.max": "100000 100000"}, 1.0),
    "another period": ("0::/\n", {"cpu.max": "100000 50000\n"}, 2.0),
    "none": ("0::/app\n", {"app/cpu.max": "max 100000\n"}, None),
    "damaged": ("0::/app\n", {"app/cpu.max": "soon\n"}, None),
    "not there": ("", {}, None),
}
V1 = {
    "its own": (
        "4:memory:/x\n3:cpu,cpuacct:/app\n",
        {
            "cpu,cpuacct/app/cpu.cfs_quota_us": "250000",
            "cpu,cpuacct/app/cpu.cfs_period_us": "100000",
        },
        2.5,
    ),
    "through a link named cpu": (
        "3:cpu,cpuacct:/app\n",
        {"cpu/app/cpu.cfs_quota_us": "100000", "cpu/app/cpu.cfs_period_us": "100000"},
        1.0,
    ),
    "a container that sees only its own group": (
        "3:cpu:/docker/1234\n",
        {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
        3.0,
    ),
    "none": (
        "3:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        None,
    ),
    "both versions at once": (
        "3:cpu:/\n0::/app\n",
        {
            "cpu/cpu.cfs_quota_us": "200000",
            "cpu/cpu.cfs_period_us": "100000",
            "unified/app/cpu.max": "max 100000",
        },
        2.0,
    ),
    "of another controller": (
        "3:cpuset:/\n",
        {"cpuset/cpu.max": "100000 100000"},
        None,
    ),
}


@pytest.mark.parametrize("own, files, limit", [*V2.values(), *V1.values()], ids=[*V2, *V1])
def test_a_quota_is_that_of_the_tightest_group(tmp_path, own, files, limit):
    assert quota(groups(tmp_path, own, files)) == limit


@pytest.mark.parametrize(
    ("text", "count"), [("50000", 1), ("100000", 1), ("199999", 1), ("250000", 2), ("900000", 4)]
)
def test_a_quota_gives_whole_cores_and_at_least_one(tmp_path, text, count):
    root = groups(tmp_path, "0::/\n", {"cpu.max": f"{text} 100000\n"})
    assert usable(root, range(4)).count == count


def test_what_limits_is_named(tmp_path):
    limited = groups(tmp_path / "a", "0::/\n", {"cpu.max": "150000 100000\n"})
    found = usable(limited, range(4))
    assert (found.count, found.why, found.exact) == (1, QUOTA, 1.5)
    assert usable(tmp_path, EVERY).why == MACHINE
    assert usable(tmp_path, range(len(EVERY) - 1)).why == AFFINITY
    assert set(WORDS) == {QUOTA, MACHINE, AFFINITY, GIVEN}


def test_hyper_threads_of_a_core_count_once(tmp_path):
    files = {
        f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": pair
        for number, pair in enumerate(("0,2", "1,3", "0,2", "1,3"))
    }
    tree(tmp_path, **files)
    assert usable(tmp_path, range(4)).count == 2
    assert usable(tmp_path, [0, 2]).count == 1
    assert usable(tmp_path, [0, 1]).count == 2


def test_threads_that_are_given_are_taken():
    assert (Target.named("cpu", 64).count, Target.named("cpu", 64).why_count) == (64, GIVEN)
    default = Target.named("cpu")
    assert (default.count, default.why_count) == (usable().count, usable().why)


PINNED = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from onnxcp.runtime.cores import usable
from pathlib import Path
from onnxcp.cluster.processes import processes
from onnxcp.optimization.settings import Asked, Settings
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from threadpoolctl import threadpool_info
target = Target.named("cpu")
model = Path(sys.argv[1])
jobs = Settings.of(model, None, Asked()).jobs
runner = open_runner(model, target)
threads = runner.session.get_session_options().intra_op_num_threads
with processes(1):
    pools = max(library["num_threads"] for library in threadpool_info())
print(usable().count, target.count, threads, jobs, pools)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not Linux")
def test_a_process_pinned_to_one_core_uses_one_thread_everywhere():
    ended = subprocess.run(
        [sys.executable, "-c", PINNED, "models/digits.onnx"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert ended.stdout.split() == ["1"] * 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not Linux")
def test_more_threads_than_can_run_are_taken_with_a_warning():
    command = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    command += "from onnxcp.cli import app; app()"
    arguments = ["benchmark", "models/digits.onnx", "--duration", "0", "--threads", "2"]
    ended = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 0
    assert ended.stderr.startswith("warning: --threads 2: 1 can run at once")
