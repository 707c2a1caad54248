"""Plans as files, and ranks as options."""

import json

import pytest

from onnxcp.errors import PlanError
from onnxcp.plan import Choice, Plan, Recipe, forced_ranks, from_json, round_up, to_json

CHANNELS = {"stem": 10, "block/conv1": 64, "block/conv2": 128}

RECIPE = Recipe(7, "cd" * 32, correct_bias=False, sequential=True)


def test_a_plan_survives_its_file(tmp_path):
    plan = Plan({"b": Choice("cp3", 32), "a": Choice("cp4", 16)})
    file = tmp_path / "plan.json"
    file.write_text(to_json(plan, "ab" * 32, RECIPE))
    assert from_json(file) == (plan, RECIPE)


def test_what_stays_in_float_is_told_where_there_is_any(tmp_path):
    plain, mixed = Choice("cp3", 32), Choice("cp3", 32, "windows")
    file, one, two = tmp_path / "plan.json", Plan({"a": plain}), Plan({"a": plain, "b": mixed})
    file.write_text(to_json(two, "ab" * 32, RECIPE))
    assert from_json(file) == (two, RECIPE)
    rows = {"a": {"form": "cp3", "rank": 32}}
    assert json.loads(to_json(one, "ab" * 32, RECIPE))["sites"] == rows
    rows["b"] = {"form": "cp3", "rank": 32, "floats": "windows"}
    assert json.loads(file.read_text())["sites"] == rows
    assert len({Plan({"a": c}).sha256 for c in (plain, mixed, Choice("cp3", 32, "chain"))}) == 3
    assert (mixed.plain, str(mixed)) == (plain, str(plain))  # fits are kept under its words


def test_a_plan_of_before_keeps_its_hash():
    plan = Plan({"b": Choice("cp3", 32), "a": Choice("cp4", 16)})
    assert plan.sha256 == "6efdf17a433d9e7a8c5389660f99759ebfddc7e74726995d3546287128e4c4b1"


def test_a_plan_is_identified_by_its_choices_not_their_order():
    one = Plan({"a": Choice("cp3", 16), "b": Choice("cp3", 32)})
    two = Plan({"b": Choice("cp3", 32), "a": Choice("cp3", 16)})
    assert one.sha256 == two.sha256
    assert one.sha256 != Plan({"a": Choice("cp3", 16)}).sha256


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"plan_version": 2}', '{"plan_version": 2, "fits": {}, "sites": {"a": {}}}'],
)
def test_what_is_no_plan_is_refused(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(PlanError, match="not a plan file"):
        from_json(file)


def test_another_version_is_refused(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"plan_version": 99, "sites": {}, "fits": {}}))
    with pytest.raises(PlanError, match="99"):
        from_json(file)


@pytest.mark.parametrize(
    ("rank", "block", "rounded"),
    [(1, 16, 16), (16, 16, 16), (16.5, 16, 32), (33, 8, 40), (0.2, 16, 16)],
)
def test_ranks_are_rounded_up_to_whole_blocks(rank, block, rounded):
    assert round_up(rank, block) == rounded


@pytest.mark.parametrize(
    ("rules", "ranks"),
    [
        (["*=1.0c"], {"stem": 16, "block/conv1": 64, "block/conv2": 128}),
        (["*=1.5c"], {"stem": 16, "block/conv1": 96, "block/conv2": 192}),
        (["stem=7"], {"stem": 7}),
        (["*=16", "block/*=32"], {"stem": 16, "block/conv1": 32, "block/conv2": 32}),
    ],
    ids=["channels", "one and a half", "as given", "the later rule wins"],
)
def test_rules_give_ranks_by_name(rules, ranks):
    assert forced_ranks(rules, CHANNELS, 16) == ranks


@pytest.mark.parametrize("rule", ["stem", "=16", "stem=", "stem=0", "stem=-1", "*=0c", "*=nanc"])
def test_a_rule_that_gives_no_rank_is_refused(rule):
    with pytest.raises(PlanError, match=r"^rank="):
        forced_ranks([rule], CHANNELS, 16)


def test_a_rule_that_matches_nothing_is_refused():
    with pytest.raises(PlanError, match="matches no site"):
        forced_ranks(["head*=16"], CHANNELS, 16)
