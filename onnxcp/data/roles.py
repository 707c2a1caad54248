"""What a run feeds a model: concrete shapes, samples to judge by, feeds to time and check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxcp.data import preprocess
from onnxcp.data import sources as data
from onnxcp.data.samples import Batching, Samples
from onnxcp.data.specs import EVERYTHING, share_samples
from onnxcp.data.split import MOST_CALIBRATION, SampleRoles, assign_roles
from onnxcp.errors import UsageError
from onnxcp.graph.input_specs import Feeds, Shape, TensorSpec, concrete_shapes

SYNTHETIC = 4  # made-up feeds to judge by where there is no data
CHECKED = 2  # feeds for the surgery check
EVALUATION_BATCH = 32  # where the model leaves the batch free
CALIBRATION_BATCH = 8
HELD_STEP, MOST_HELD = 10, 1024  # of what trains: every tenth sample, at most so many


@dataclass(frozen=True, slots=True)
class Sources:
    """The options of a command that say what to feed."""

    data: tuple[str, ...] = ()
    calibration: tuple[str, ...] = ()
    preprocess: str = "none"
    samples: int | None = None
    batch: int | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    seed: int = 0
    hold_out: bool = False  # keep samples for the end that a search may not use
    roles: SampleRoles | None = None  # that an earlier run gave to the samples of the same data
    train: tuple[str, ...] = ()
    trains: bool = False  # samples to train on are needed, also where `train` names none

    def __post_init__(self) -> None:
        for option, number in (("--samples", self.samples), ("--batch", self.batch)):
            if number is not None and number < 1:
                raise UsageError(f"{option} {number}: give 1 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """`shapes` are those a benchmark runs at; `samples`, which judge, are None without data.
    `searched` are those that a search may use, apart from `samples` where there are two and
    more. `data` are all samples of `--data`, which have these `roles`."""

    shapes: Mapping[str, Shape]
    samples: Samples | None
    searched: Samples | None
    synthetic: Samples
    calibration: Samples | None
    batching: Batching
    timed: Feeds
    training: Samples | None = None
    held: Samples | None = None  # of those to train on: these choose the weights
    data: Samples | None = None
    roles: SampleRoles | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether the samples that judge in the end have no part in the search."""
        return self.samples is not self.searched

    @property
    def notes(self) -> tuple[str, ...]:
        """What was made of the sources that a user may not expect, each once."""
        sources = (self.data, self.calibration, self.training)
        return tuple(dict.fromkeys(n for s in sources if s is not None for n in s.notes))

    @property
    def judging(self) -> int:
        """How many samples the original is judged on, before anything is done."""
        final = len(self.samples or self.synthetic)
        return final + (len(self.searched or self.synthetic) if self.is_held_out else 0)

    @property
    def calibrating(self) -> Batching:
        """Fewer at once than to judge: every site's input is held."""
        return self.batching if self.batching.fixed else Batching(CALIBRATION_BATCH, fixed=False)

    @property
    def different(self) -> list[Feeds]:
        """Two feeds of different samples."""
        if self.samples is None:
            return [self.synthetic.read(place, place + 1) for place in range(2)]
        size = self.batching.size if self.batching.fixed else 1
        places = (0, len(self.samples) // 2)
        return [_filled(self.samples.read(place, place + 1), size) for place in places]

    @property
    def checked(self) -> list[Feeds]:
        """A few feeds for the surgery check: calibration samples, else others at hand."""
        source = self.calibration or self.samples
        if source is None:
            return list(self.synthetic.first(CHECKED).batches(1))
        size = self.batching.size if self.batching.fixed else CHECKED
        return [_filled(source.read(0, min(size, len(source))), size)]


def prepare(specs: Sequence[TensorSpec], sources: Sources) -> Inputs:
    """Load and check everything that a run feeds, before any work is done.

    Raises:
        DataError: samples that can not be read or do not fit.
        UsageError: a shape that nothing fixes, or data used twice.
    """
    recipe = preprocess.named(sources.preprocess)
    _refuse_reuse(sources)
    given = _load(sources.data, specs, recipe, sources.samples)
    calibration = _load(sources.calibration, specs, recipe, None)
    training, held = _load(sources.train, specs, recipe, None), None
    samples, searched, roles = given, given, None
    if given is not None:
        roles = _roles(given, sources, calibrates=calibration is None and training is None)
        samples, searched = _judging(given, roles)
        if roles.calibration:
            calibration = given.at(roles.calibration)
    if training is None and sources.trains:
        training, calibration = calibration, None
    if training is not None:
        training, held = hold_out(training)
        calibration = calibration or training.spaced(MOST_CALIBRATION)
    shapes = concrete_shapes(
        specs,
        batch=sources.batch,
        overrides=sources.input_shapes,
        samples={} if samples is None else samples.shapes(),
    )
    synthetic = data.synthetic(specs, shapes, SYNTHETIC, sources.seed)
    fixed = not all(s.has_free_batch for s in specs if s.dims != ())
    size = next((shape[0] for shape in shapes.values() if shape), 1) if fixed else EVALUATION_BATCH
    timed = synthetic.read(0, 1) if samples is None else _timed(samples, shapes)
    batching = Batching(size, fixed)
    return Inputs(
        shapes=shapes,
        samples=samples,
        searched=searched,
        synthetic=synthetic,
        calibration=calibration,
        batching=batching,
        timed=timed,
        training=training,
        held=held,
        data=given,
        roles=roles,
    )


def _roles(given: Samples, sources: Sources, *, calibrates: bool) -> SampleRoles:
    """The roles that are asked for, where they fit; else those of the rule."""
    asked = sources.roles
    if asked is not None and asked.count == len(given):
        return asked
    return assign_roles(len(given), calibrates=calibrates, searches=sources.hold_out)


def _judging(given: Samples, roles: SampleRoles) -> tuple[Samples, Samples]:
    """Samples that judge the result, and those that judge while a search goes on."""
    judging = given.at(roles.evaluation)
    if not roles.search_step or not roles.is_held_out:
        return judging, judging
    return judging, given.at(roles.search)


def hold_out(samples: Samples) -> tuple[Samples, Samples]:
    """Samples to train on, and every tenth or fewer to choose the weights by: fits may not be
    calibrated with these, or the weights as they came would look better than they are."""
    held, training = samples.split(max(HELD_STEP, -(-len(samples) // MOST_HELD)))
    return training, held


def _load(
    names: Sequence[str],
    specs: Sequence[TensorSpec],
    recipe: preprocess.Preprocess,
    most: int | None,
) -> Samples | None:
    if not names:
        return None
    needed = EVERYTHING if most is None else most
    joined = data.join([data.load(name, specs, recipe, needed) for name in names])
    return joined if most is None else joined.first(most)


def _refuse_reuse(sources: Sources) -> None:
    for judged in sources.data:
        for option, does, others in (
            ("--calibration", "calibrate", sources.calibration),
            ("--train", "train", sources.train),
        ):
            for source in others:
                if share_samples(judged, source):
                    raise UsageError(
                        f"--data {judged} and {option} {source} share samples; those that {does} "
                        "must not judge: give others, or parts as PATH[:400] and PATH[400:]"
                    )


def _timed(samples: Samples, shapes: Mapping[str, Shape]) -> Feeds:
    """Real samples at the shapes of the benchmark; made-up ones where those differ."""
    batch = next((shape[0] for shape in shapes.values() if shape), 1)
    feeds = _filled(samples.read(0, min(batch, len(samples))), batch)
    if any(feeds[name].shape != shape for name, shape in shapes.items()):
        shown = ", ".join(f"{n}:{'x'.join(map(str, s))}" for n, s in shapes.items())
        raise UsageError(
            f"--input-shape {shown} is not the shape of the samples in --data; leave it out"
        )
    return feeds


def _filled(feeds: Feeds, count: int) -> dict[str, np.ndarray]:
    """Feeds of exactly `count` samples, repeated where there are fewer."""
    return {n: np.resize(a, (count, *a.shape[1:])) for n, a in feeds.items()}
