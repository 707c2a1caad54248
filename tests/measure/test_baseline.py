"""A benchmark against an earlier one: slower is seen, noise is not, and only what can be
compared is compared. Times are made up."""

import copy

import numpy as np
import pytest

from onnxcp.errors import TableError, UsageError
from onnxcp.measure import baseline
from onnxcp.measure.baseline import Change, parse_limit
from onnxcp.measure.benchmark import Run, Timed
from onnxcp.measure.timing import Timing
from onnxcp.report import WRITERS, benchmark
from onnxcp.runtime.providers import Target

HERE = {"cpu": "one", "gpu": None}
WHERE = "base.json"


def timing(mean, seed=0):
    return Timing(tuple(mean * np.exp(0.02 * np.random.default_rng(seed).standard_normal(400))))


def timed(*means, batches=(1,), seed=0, **environment):
    """A benchmark of models that take `means` seconds a sample."""
    runs = tuple(
        Run(
            batch,
            {"x": (batch, 3)},
            tuple(timing(m * batch, seed + i) for i, m in enumerate(means)),
        )
        for batch in batches
    )
    names = tuple(f"{letter}.onnx" for letter in "ab"[: len(means)])
    return Timed(names, runs, Target.named("cpu", 1), {**HERE, **environment})


def since(then, now):
    return baseline.since(benchmark.to_document(then), now, WHERE)


@pytest.mark.parametrize("means", [(1.0,), (1.0, 0.5)], ids=["one model", "two"])
def test_ten_percent_slower_is_beyond_five(means):
    *first, last = means
    (found,) = since(timed(*means), timed(*first, 1.1 * last, seed=7))
    assert found.slower == pytest.approx(0.1, abs=0.01)
    assert found.exceeds(0.05)
    assert not found.exceeds(0.15)


@pytest.mark.parametrize("means", [(1.0,), (1.0, 0.5)], ids=["one model", "two"])
def test_noise_is_not_slower(means):
    changes = [since(timed(*means, seed=s), timed(*means, seed=s + 50))[0] for s in range(20)]
    assert not any(change.exceeds(0.0) for change in changes)


def test_a_change_that_may_be_none_fails_no_limit():
    assert not Change(1, 0.08, 0.009, 0.2).exceeds(0.05)
    assert Change(1, 0.08, 0.02, 0.2).exceeds(0.05)


def test_of_two_models_the_second_is_judged_by_the_first():
    (slower,) = baseline.of_two(timed(1.0, 1.1))
    assert slower.slower == pytest.approx(0.1, abs=0.01)
    (faster,) = baseline.of_two(timed(1.0, 0.5))
    assert faster.slower == pytest.approx(-0.5, abs=0.01)
    assert not faster.exceeds(0.0)


def test_batch_sizes_are_compared_with_their_like():
    then, now = timed(1.0, batches=(1, 8)), timed(1.2, batches=(8,), seed=3)
    assert [(c.batch, round(c.slower, 1)) for c in since(then, now)] == [(8, 0.2)]
    with pytest.raises(UsageError, match="no batch of 4, only 1, 8"):
        since(then, timed(1.0, batches=(4,)))


def test_one_model_on_another_machine_is_not_compared():
    with pytest.raises(UsageError, match="cpu one, here other"):
        since(timed(1.0), timed(1.0, cpu="other"))


def test_two_models_on_another_machine_are():
    (found,) = since(timed(1.0, 0.5), timed(2.0, 1.0, cpu="other"))
    assert abs(found.slower) < 0.01


@pytest.mark.parametrize(
    ("field", "value"), [("threads", 2), ("provider", "cuda"), ("provider_options", {"a": "1"})]
)
def test_what_was_measured_otherwise_is_not_compared(field, value):
    document = {**benchmark.to_document(timed(1.0, 0.5)), field: value}
    with pytest.raises(UsageError, match=field):
        baseline.since(document, timed(1.0, 0.5), WHERE)


def test_one_model_is_not_compared_with_two():
    with pytest.raises(UsageError, match="timed 2 models, this benchmark 1"):
        since(timed(1.0, 0.5), timed(1.0))


def test_a_file_reads_as_it_was_written(tmp_path):
    path = tmp_path / WHERE
    made = timed(1.0, 0.5)
    path.write_text(WRITERS[".json"](benchmark.page(made)))
    assert baseline.from_file(path)["runs"] == benchmark.to_document(made)["runs"]


@pytest.mark.parametrize("field", ["runs", "environment", "models", "threads"])
def test_a_damaged_benchmark_is_said_to_be(field):
    document = copy.deepcopy(benchmark.to_document(timed(1.0)))
    document[field] = 3
    with pytest.raises((TableError, UsageError), match=WHERE):
        baseline.since(document, timed(1.0), WHERE)


@pytest.mark.parametrize(
    "models", [[], {}, "x", [[]], [{"p50_ci": [1.0]}], [{"p50_ci": [0, 0], "milliseconds": {}}]]
)
def test_a_damaged_run_is_said_to_be(models):
    document = copy.deepcopy(benchmark.to_document(timed(1.0)))
    document["runs"][0]["models"] = models
    with pytest.raises(TableError, match="damaged"):
        baseline.since(document, timed(1.0), WHERE)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"benchmark_version": 99}', "nan"])
def test_a_file_that_is_no_benchmark_is_refused(text, tmp_path):
    path = tmp_path / WHERE
    path.write_text(text)
    with pytest.raises(TableError, match="not a benchmark"):
        baseline.from_file(path)


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), (" 12.5 % ", 0.125)])
def test_a_limit_is_a_share_or_percent(text, value):
    assert parse_limit(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "-5%", "nan", "inf", "1000%", "10", "5%%"])
def test_a_limit_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="write it as 5%"):
        parse_limit(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change(1, -0.802, -0.803, -0.801), "80.2% faster than before (95 % 80.1 to 80.3)"),
        (Change(1, 0.25, 0.2, 0.3), "25.0% slower than before (95 % 20.0 to 30.0)"),
        (
            Change(1, 0.01, -0.02, 0.03),
            "no significant difference to before (95 % 2.0% faster to 3.0% slower)",
        ),
        (
            Change(1, 0.003, 0.002, 0.004),
            "no significant difference to before (95 % 0.0% faster to 0.4% slower)",
        ),
    ],
)
def test_a_change_is_said_in_its_own_direction(change, words):
    assert change.words == words
