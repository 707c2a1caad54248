"""Why a run ended as it did, and why a layer stays as it is.

A reason is a value, made where the decision is made and passed on unchanged. `Kind` is the table
of all of them, each with the one sentence that a report shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from string import Formatter
from typing import Any

from onnxcp.graph import float_parts
from onnxcp.measure.timing import Speedup
from onnxcp.plan import Choice


class Kind(Enum):
    """A row for every decision: its code in RUN.json, and its sentence."""

    # A layer that is replaced
    MEASURED = "measured", "measured {speed}"
    UNMEASURED = "unmeasured", "as asked for; {why}"
    MEASURED_THERE = "measured-there", "measured {speed} on the machine of the latency table"

    # A layer that stays, by the stage at which that was decided
    EXCLUDED = "excluded", "left out by <<include>> or <<exclude>>"
    NO_RANK = "no-rank", "no rank is given for it"
    NOT_IN_PLAN = "not-in-plan", "the plan that is replayed does not name it"
    REFUSED = "refused", "{detail}"
    NO_SAVING = "no-saving", "no candidate rank saves multiply-adds"
    NOT_TIMED = "not-timed", "not timed: {why}"
    BUSY = "busy", "could not be measured: {why}"
    NOT_FASTER = "not-faster", "no chain is measured faster; the best, {chain}: {speed}"
    NOT_SURELY_FASTER = (
        "not-surely-faster",
        "{chain} is measured {speed}, but ranks that take about as long are not",
    )
    TOO_FEW_RANKS = (
        "too-few-ranks",
        "chains are faster only below rank {least}, too poor for {channels} channels; the best, "
        "{chain}: {speed}",
    )
    NOT_FITTED = (
        "not-fitted",
        "not fitted, so not judged: {why}; the fastest chain, {chain}: {speed}",
    )
    NO_USABLE_FIT = (
        "no-usable-fit",
        "no fit of its faster chains is usable; the fastest, {chain}: {speed}",
    )
    NOT_JUDGED = (
        "not-judged",
        "no plan that replaces it was judged: {why}; the fastest chain, {chain}: {speed}",
    )
    ALL_OVER_BUDGET = (
        "all-over-budget",
        "replaced in {with_it} of {judged} plans judged, none of them safely within {budget}; the "
        "fastest chain, {chain}: {speed}",
    )
    LEFT_BY_PLAN = (
        "left-by-plan",
        "the plan found leaves it as it is; its fastest chain, {chain}: {speed}, is predicted to "
        "change the output by {change}",
    )
    OUT_OF_REACH = (
        "out-of-reach",
        "all layers' fastest chains together are not {budget}; this one's, {chain}: {speed}",
    )
    NOTHING_LEFT = (
        "nothing-left",
        "{precision} uses the whole budget, so no chain was tried; the fastest, {chain}: {speed}",
    )
    LEFT_FOR_INT8 = (
        "stays-quantized",
        "its chains are faster in float alone, and with every layer in float nothing would be left "
        "for int8; the fastest chain, {chain}: {speed}",
    )
    RIVAL = "rival", "{winner} is the better model; with chains, this one was {chain}"
    TRIED = "tried", "tried as {chain}, but the plan was not accepted: {why}"

    # Why a run writes nothing
    NO_LAYERS = "no-layers", "the model has no layer that a chain could replace"
    ALL_EXCLUDED = "all-excluded", "<<include>> and <<exclude>> leave no layer"
    EMPTY_PLAN = "empty-plan", "the plan that is replayed replaces no layer"
    NONE_SAVES = "none-saves", "no candidate rank of any layer saves multiply-adds"
    NONE_FASTER = (
        "none-faster",
        "no chain is measured clearly faster than the layer it would replace",
    )
    TIMING_LATE = (
        "timing-late",
        "the time budget of {budget:.0f} s ended the timing with {missing} of {layers} layers not "
        "timed, and no chain is measured clearly faster than one of the others; raise "
        "<<time_budget>>, or name fewer layers by <<include>>",
    )
    NO_CANDIDATE = (
        "no-candidate",
        "the chains that are measured faster are too poor to be used, or no fit of them is usable",
    )
    LATE = "late", "the time budget of {budget:.0f} s ended {stage}; raise <<time_budget>>{remedy}"
    LATE_JUDGED = (
        "late-judged",
        "the time budget of {budget_seconds:.0f} s ended after {plans}, none of them safely within "
        "{budget}: the least loss is {least}; raise <<time_budget>>{remedy}",
    )
    NONE_WITHIN = (
        "none-within",
        "{plans}, none of them safely within {budget}: the least loss is {least}",
    )
    UNREACHABLE = (
        "unreachable",
        "even the fastest chains are not {budget} by the latency table: {reach:.2f}×",
    )
    PRECISION_LOSES = (
        "precision-loses",
        "{precision} uses the whole budget, which leaves nothing for chains",
    )
    OVER_BUDGET = "over-budget", "over budget: {what}: {lost}, ≤ {budget:.4g} asked"
    TOO_BUSY = "too-busy", "{why}"
    SLOWER = "slower", "not faster as a whole: {what}: {speed}, {lost}"
    SHORT_OF_TARGET = "short-of-target", "{wanted:g}× faster is not reached: {speed}, {lost}"
    UNRELIABLE_TABLE = (
        "unreliable-table",
        "the latency table does not add up to whole models, and this machine is not the one it is "
        "of: nothing proves a speed-up; make it again with onnxcp profile",
    )

    # Why it writes
    FASTER = "faster", "{speed}, {lost}"
    IN_FLOAT = (
        "in-float",
        "{written} is written, not {asked}: of what is within the budget, {what} are the fastest: "
        "{speed}, {lost}",
    )
    FORCED = "forced", "ranks as given: {speed}, {lost}"

    def __init__(self, code: str, sentence: str) -> None:
        self.code, self.sentence = code, sentence

    @property
    def fields(self) -> frozenset[str]:
        """What the sentence needs."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.sentence) if name)


@dataclass(frozen=True, slots=True)
class Reason:
    """A kind with its facts: numbers, names, and phrases made of measurements."""

    kind: Kind
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The sentence, without a full stop."""
        return self.kind.sentence.format(**self.facts)

    @property
    def code(self) -> str:
        return self.kind.code


def because(kind: Kind, **facts: Any) -> Reason:
    """A reason, with all that its sentence needs.

    Raises:
        TypeError: a fact is missing, or is none of this kind's.
    """
    if facts.keys() != kind.fields:
        raise TypeError(f"{kind.name} takes {sorted(kind.fields)}, not {sorted(facts)}")
    return Reason(kind, facts)


def chain(choice: Choice) -> str:
    """A chain in words: "cp3 at rank 16"."""
    return f"{choice.form} at rank {choice.rank}{float_parts.words(choice.floats)}"


def speed(found: Speedup) -> str:
    """A measured ratio in words, as a part of a sentence."""
    return found.verdict()
