"""What a search chooses from and what it chooses: numbers and names only.

A `Plan` is a JSON file that replays: it names a form and a rank for every site it changes,
and every site it does not name stays as it is.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onnxcp.errors import MALFORMED, PlanError
from onnxcp.storage.plain_fields import from_plain

PLAN_VERSION = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """A form at a rank, for one site. `floats` is what of the chain an int8 model leaves in
    float, "windows" or "chain" (see `mixing`), on which its fit does not depend."""

    form: str
    rank: int
    floats: str = field(default="", repr=False)  # fits and journals are kept under the rest

    @property
    def plain(self) -> "Choice":
        """The same with nothing left in float: what the fit is known by."""
        return replace(self, floats="")

    def row(self) -> dict[str, Any]:
        """As a plan's file and a report have it."""
        row: dict[str, Any] = {"form": self.form, "rank": self.rank}
        return {**row, "floats": self.floats} if self.floats else row


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice for one site with its measured time and the numbers it stores."""

    site: str
    choice: Choice
    seconds: float
    parameters: int = 0


@dataclass(frozen=True, slots=True)
class Original:
    """A site as it is."""

    seconds: float
    parameters: int
    channels: int  # that it writes


@dataclass(frozen=True, slots=True)
class Plan:
    """Site name → choice."""

    choices: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def key(self) -> tuple[tuple[str | int, ...], ...]:
        return tuple((s, *c.row().values()) for s, c in sorted(self.choices.items()))

    @property
    def sha256(self) -> str:
        """The hash of `key`, the same for plans with the same choices."""
        return hashlib.sha256(json.dumps(self.key).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of a kernel unfolded into a matrix of `rows` × `columns`."""

    values: tuple[float, ...]
    rows: int
    columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Menu:
    """Candidates that are measured faster than the layer they would replace, by site.

    `loss` predicts what the network loses if only this candidate is used: it adds up over
    sites, but its unit is not that of the budget. `spectra` gives a kernel unfolded along its
    outputs and its inputs. `journal` is a file in which a search may keep what it knows.
    """

    sites: Mapping[str, Sequence[Candidate]]
    originals: Mapping[str, Original]
    total: float  # seconds of the whole model as it is
    loss: Callable[[Candidate], float]
    spectra: Callable[[str], Sequence[Spectrum]]
    seed: int = 0
    journal: Path | None = None

    def seconds(self, plan: Plan) -> float:
        """Time of the whole model under a plan, by the candidates' times."""
        saved = 0.0
        for name, choice in plan.choices.items():
            chosen = next(c for c in self.sites[name] if c.choice == choice)
            saved += self.originals[name].seconds - chosen.seconds
        return self.total - saved


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search is to find: the fastest plan that loses at most `limit`; or, where
    `seconds` is given, the plan that loses least among those at most so slow."""

    limit: float
    words: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What a plan loses, in the budget's unit: smaller is better. `spread` is its standard
    error; `change` how far the outputs moved, relative to their size, squared."""

    loss: float
    spread: float = 0.0
    change: float = 0.0

    def within(self, budget: Budget) -> bool:
        return self.loss <= budget.limit


Judge = Callable[[Plan], Score]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the fits of a plan depend on besides the model: with it a plan replays to the same
    bytes. `calibration` is the hash of the samples that calibrated; None for the plain norm.
    `shortcuts` are those that became convolutions. A run in a hurry calibrates with fewer samples,
    `calibration_samples` at equal distances, and writes `drafts` of its fits."""

    seed: int = 0
    calibration: str | None = None
    correct_bias: bool = True
    sequential: bool = False
    memory: int = 0  # bytes that covariances may take: it decides which are kept whole
    precision: str = "float32"  # of the model that is written, which fits do not depend on
    shortcuts: tuple[str, ...] = ()
    calibration_samples: int = 0  # 0: all of them
    drafts: bool = False
    passes: tuple[str, ...] = ()  # exact passes, in their order


def to_json(
    plan: Plan, source: str, recipe: Recipe, samples: Mapping[str, Any] | None = None
) -> str:
    """The file `plan` reads. `source` is the model's sha256, `samples` the roles that the
    samples of `data` had (see `sample_roles`)."""
    sites = {n: c.row() for n, c in sorted(plan.choices.items())}
    fits = asdict(recipe)
    if not recipe.passes:
        del fits["passes"]  # versions before know of none
    document = {
        "plan_version": PLAN_VERSION,
        "source_sha256": source,
        "fits": fits,
        "samples": None if samples is None else dict(samples),
        "sites": sites,
    }
    return json.dumps(document, indent=2) + "\n"


def from_json(path: Path) -> tuple[Plan, Recipe]:
    """The plan in a file and the recipe of its fits.

    Raises:
        PlanError: not a plan file, or of another version.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, sites, fits = document["plan_version"], document["sites"], document.get("fits", {})
        choices = {
            name: Choice(str(row["form"]), row["rank"], str(row.get("floats", "")))
            for name, row in sites.items()
        }
        recipe: Recipe = from_plain(Recipe, fits)
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}; give a plan that a run wrote") from error
    except MALFORMED as error:
        raise PlanError(f"{path}: not a plan file; give a plan that a run wrote") from error
    if version != PLAN_VERSION:
        raise PlanError(f"{path}: plan version {version}, not {PLAN_VERSION}; make it again")
    for number in (recipe.seed, *(choice.rank for choice in choices.values())):
        if type(number) is not int or number < 0:
            raise PlanError(f"{path}: {number!r} is no rank or seed; give a plan that a run wrote")
    return Plan(choices), recipe


def samples_of(path: Path) -> Mapping[str, Any] | None:
    """The roles of samples noted in a plan that `from_json` reads; None where it notes none."""
    found = json.loads(path.read_text(encoding="utf-8")).get("samples")
    return found if isinstance(found, dict) else None


def refuse_another_source(path: Path, sha256: str, model: Path) -> None:
    """Raises PlanError where a plan that `from_json` reads notes another model than the one with
    this hash; one that was written by hand may note none."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("source_sha256", sha256) != sha256:
        raise PlanError(
            f"{path}: is a plan of another model than {model}, by its hash; give the model that it "
            "was made of, or make a plan anew"
        )


def plan_file(output: Path) -> Path:
    """Where the plan of a model lies."""
    return output.with_suffix(".plan.json")


def round_up(rank: float, block: int) -> int:
    """The smallest multiple of `block` that is not below `rank`, and at least one block."""
    return max(1, -(-int(-(-rank // 1)) // block)) * block


def forced_ranks(
    rules: Sequence[str],
    channels: Mapping[str, int],
    block: int,
    most: Mapping[str, int] | None = None,
    groups: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Ranks that `GLOB=R` rules give to sites; a later rule wins over an earlier one.

    R is an integer, or `1.5c`: times the site's output channels, rounded up to `block` and its
    groups but never above `most`, the largest rank that has a use. An integer is taken as it
    is.

    Raises:
        PlanError: a rule is malformed or matches no site.
    """
    ranks: dict[str, int] = {}
    for rule in rules:
        pattern, equals, value = rule.rpartition("=")
        matched = [name for name in channels if fnmatchcase(name, pattern)]
        if not equals or not pattern:
            raise PlanError(f"<<rank={rule!r}>>: write it as 'GLOB=32' or 'GLOB=1.5c'")
        if not matched:
            raise PlanError(f"<<rank={rule!r}>>: matches no site; `onnxcp inspect` lists them")
        for name in matched:
            step = math.lcm(block, (groups or {}).get(name, 1))
            rank = _rank(rule, value, channels[name], step)
            ranks[name] = min(rank, (most or {}).get(name, rank)) if value.endswith("c") else rank
    return ranks


def _rank(rule: str, value: str, channels: int, block: int) -> int:
    try:
        if value.endswith("c"):
            rank = round_up(float(value[:-1]) * channels, block) if float(value[:-1]) > 0 else 0
        else:
            rank = int(value)
    except (ValueError, OverflowError):
        rank = 0
    if rank < 1:
        raise PlanError(f"<<rank={rule!r}>>: {value!r} is no rank; give 32 or 1.5c")
    return rank
