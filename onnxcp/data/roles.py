"""What a run feeds a model: concrete shapes, the sample sets, and feeds to time and to check.

The calibration set fits chains and int8 ranges, the search set compares plans, the evaluation set
judges the result. No sample is in both the calibration set and the evaluation set, unless there
are too few. A training run splits its samples into a training set and a validation set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.data import preprocess
from onnxcp.data import sources as data
from onnxcp.data.samples import Batching, Samples
from onnxcp.data.specs import NO_LIMIT, share_samples
from onnxcp.data.split import MAX_CALIBRATION_SAMPLES, SampleRoles, assign_roles
from onnxcp.errors import UsageError
from onnxcp.graph.input_specs import Feeds, Shape, TensorSpec, concrete_shapes, parse_shape
from onnxcp.options.data import DataOptions
from onnxcp.options.option import values_of

SYNTHETIC_SAMPLES = 4  # to evaluate on if there is no data
SURGERY_SAMPLES = 2  # for the surgery check
EVALUATION_BATCH = 32  # if the model leaves the batch size free
CALIBRATION_BATCH = 8
VALIDATION_STEP, MAX_VALIDATION_SAMPLES = 10, 1024  # every tenth of those to train on


@dataclass(frozen=True, slots=True)
class Sources(DataOptions):
    """What to feed, as options say it, and what a run needs of it.

    Raises:
        UsageError: `samples` or `batch` is below 1, or an input shape is invalid.
    """

    seed: int = 0
    hold_out: bool = False  # keep an evaluation set that the search does not use
    roles: SampleRoles | None = None  # of an earlier run on the same data
    trains: bool = False  # a training set is needed, even if `train` is empty

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)
        _ = self.input_shapes  # an invalid shape is refused now

    @classmethod
    def of(cls, options: DataOptions, seed: int = 0) -> "Sources":
        """Raises UsageError for an input shape that is invalid."""
        return cls(**values_of(options), seed=seed)

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """The shapes that were given, by input."""
        return dict(map(parse_shape, self.input_shape))


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """All that a run feeds a model.

    `shapes` are those of the benchmark, by input. `samples` is the evaluation set, None without
    data. `search_samples` is the search set: the same as `samples` if none are held out.
    `validation` is the part of the samples to train on that chooses the weights. `data` are all
    samples of `data`, in these `roles`.
    """

    shapes: Mapping[str, Shape]
    samples: Samples | None
    search_samples: Samples | None
    synthetic: Samples
    calibration: Samples | None
    batching: Batching
    timed_feeds: Feeds
    training: Samples | None = None
    validation: Samples | None = None
    data: Samples | None = None
    roles: SampleRoles | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether the evaluation set has no part in the search."""
        return self.samples is not self.search_samples

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on how the sources were read, each once."""
        sources = (self.data, self.calibration, self.training)
        return tuple(dict.fromkeys(n for s in sources if s is not None for n in s.notes))

    @property
    def evaluation_count(self) -> int:
        """How many samples the original is evaluated on, before anything else is done."""
        final = len(self.samples or self.synthetic)
        return final + (len(self.search_samples or self.synthetic) if self.is_held_out else 0)

    @property
    def calibration_batching(self) -> Batching:
        """Smaller batches than for evaluation, because the input of every site is held."""
        return self.batching if self.batching.fixed else Batching(CALIBRATION_BATCH, fixed=False)

    @property
    def distinct_feeds(self) -> list[Feeds]:
        """Two feeds of different samples."""
        if self.samples is None:
            return [self.synthetic.read(place, place + 1) for place in range(2)]
        size = self.batching.size if self.batching.fixed else 1
        places = (0, len(self.samples) // 2)
        return [_filled(self.samples.read(place, place + 1), size) for place in places]

    @property
    def surgery_feeds(self) -> list[Feeds]:
        """Feeds for the surgery check: of calibration, else evaluation, else synthetic samples."""
        source = self.calibration or self.samples
        if source is None:
            return list(self.synthetic.first(SURGERY_SAMPLES).batches(1))
        size = self.batching.size if self.batching.fixed else SURGERY_SAMPLES
        return [_filled(source.read(0, min(size, len(source))), size)]


def prepare(specs: Sequence[TensorSpec], sources: Sources) -> Inputs:
    """Load and check everything that a run feeds, before any work is done.

    Raises:
        DataError: samples cannot be read, or do not fit the inputs.
        UsageError: the size of an input is unknown, or two options share samples.
    """
    recipe = preprocess.named(sources.preprocess)
    _refuse_reuse(sources)
    loaded = _load(sources.data, specs, recipe, sources.samples)
    calibration = _load(sources.calibration, specs, recipe, None)
    training, validation = _load(sources.train, specs, recipe, None), None
    samples, search_samples, roles = loaded, loaded, None
    if loaded is not None:
        roles = _roles(loaded, sources, calibrates=calibration is None and training is None)
        samples, search_samples = _evaluation_and_search(loaded, roles)
        if roles.calibration:
            calibration = loaded.at(roles.calibration)
    if training is None and sources.trains:
        training, calibration = calibration, None
    if training is not None:
        training, validation = hold_out(training)
        calibration = calibration or training.spaced(MAX_CALIBRATION_SAMPLES)
    shapes = concrete_shapes(
        specs,
        batch=sources.batch,
        overrides=sources.input_shapes,
        samples={} if samples is None else samples.shapes(),
    )
    synthetic = data.synthetic(specs, shapes, SYNTHETIC_SAMPLES, sources.seed)
    fixed = not all(s.has_free_batch for s in specs if s.dims != ())
    size = next((shape[0] for shape in shapes.values() if shape), 1) if fixed else EVALUATION_BATCH
    timed_feeds = synthetic.read(0, 1) if samples is None else _timed(samples, shapes)
    batching = Batching(size, fixed)
    return Inputs(
        shapes=shapes,
        samples=samples,
        search_samples=search_samples,
        synthetic=synthetic,
        calibration=calibration,
        batching=batching,
        timed_feeds=timed_feeds,
        training=training,
        validation=validation,
        data=loaded,
        roles=roles,
    )


def _roles(samples: Samples, sources: Sources, *, calibrates: bool) -> SampleRoles:
    """The recorded roles if they are of as many samples; else those of `assign_roles`."""
    recorded = sources.roles
    if recorded is not None and recorded.count == len(samples):
        return recorded
    return assign_roles(len(samples), calibrates=calibrates, searches=sources.hold_out)


def _evaluation_and_search(samples: Samples, roles: SampleRoles) -> tuple[Samples, Samples]:
    """The evaluation set and the search set; one and the same if none is held out."""
    evaluation = samples.at(roles.evaluation)
    if not roles.search_step or not roles.is_held_out:
        return evaluation, evaluation
    return evaluation, samples.at(roles.search)


def hold_out(samples: Samples) -> tuple[Samples, Samples]:
    """The training set and the validation set, which is every tenth sample or fewer.

    Fits must not be calibrated on the validation set: the weights before training would look
    better than they are.
    """
    step = max(VALIDATION_STEP, -(-len(samples) // MAX_VALIDATION_SAMPLES))
    validation, training = samples.split(step)
    return training, validation


def _load(
    names: Sequence[str],
    specs: Sequence[TensorSpec],
    recipe: preprocess.Preprocess,
    limit: int | None,
) -> Samples | None:
    if not names:
        return None
    needed = NO_LIMIT if limit is None else limit
    joined = data.join([data.load(name, specs, recipe, needed) for name in names])
    return joined if limit is None else joined.first(limit)


def _refuse_reuse(sources: Sources) -> None:
    """Raises UsageError for samples of `data` that also calibrate or train."""
    for evaluated in sources.data:
        for option, purpose, specs in (
            ("calibration", "calibration", sources.calibration),
            ("train", "training", sources.train),
        ):
            for source in specs:
                if share_samples(evaluated, source):
                    raise UsageError(
                        f"<<data={evaluated}>> and <<{option}={source}>> share samples; samples "
                        f"for {purpose} must not be used for evaluation: give others, or parts as "
                        "PATH[:400] and PATH[400:]"
                    )


def _timed(samples: Samples, shapes: Mapping[str, Shape]) -> Feeds:
    """Real samples at the shapes of the benchmark.

    Raises:
        UsageError: the samples have other shapes than those of the benchmark.
    """
    batch = next((shape[0] for shape in shapes.values() if shape), 1)
    feeds = _filled(samples.read(0, min(batch, len(samples))), batch)
    if any(feeds[name].shape != shape for name, shape in shapes.items()):
        shown = ", ".join(f"{n}:{'x'.join(map(str, s))}" for n, s in shapes.items())
        raise UsageError(
            f"<<input_shape={shown}>> differs from the shape of the samples in <<data>>; leave it "
            "out"
        )
    return feeds


def _filled(feeds: Feeds, count: int) -> dict[str, np.ndarray]:
    """Feeds of exactly `count` samples, repeated if there are fewer."""
    return {n: np.resize(a, (count, *a.shape[1:])) for n, a in feeds.items()}
