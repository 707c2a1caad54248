"""The keywords of every verb with their types, for editors and type checkers.

Names alone: defaults and help are those of `onnxcp.options`, and a test holds every verb against
the flags of its command.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from onnxcp.api.samples import DataLike

PathLike: TypeAlias = str | os.PathLike[str]
Names: TypeAlias = str | Sequence[str]
Shapes: TypeAlias = Mapping[str, Sequence[int]] | Names  # {"image": (1, 3, 224, 224)}
Ranks: TypeAlias = Mapping[str, int | str] | Names  # {"layer*": 32} or {"layer*": "1.5c"}
Bounds: TypeAlias = float | Mapping[str, float] | Names  # of all outputs, or by output
Metric: TypeAlias = str | Callable[..., float]


class Shaped(TypedDict, total=False):
    """Keywords for the sizes of inputs."""

    batch: int
    input_shape: Shapes


class Where(TypedDict, total=False):
    """Keywords for the provider and its threads."""

    provider: str
    provider_option: Mapping[str, object] | Names
    threads: int


class Timed(Where, total=False):
    """Keywords of verbs that time models."""

    cuda_graph: bool
    precision: str


class Judged(TypedDict, total=False):
    """Keywords for the samples, the metric and the budget."""

    data: DataLike
    preprocess: PathLike
    samples: int
    metric: Metric
    max_drop: float | str
    output_name: Names
    accept_baseline: bool


class Kept(TypedDict, total=False):
    """Keywords for files that a run writes."""

    work_dir: PathLike
    resume: bool
    output: PathLike
    overwrite: bool
    seed: int


class Optimize(Judged, Shaped, Timed, Kept, total=False):
    """Keywords of `optimize`."""

    calibration: DataLike
    train: DataLike
    max_error: float
    target_speedup: float
    allow_unchanged: bool
    form: str
    strategy: str
    time_budget: float | str
    pareto: PathLike
    rank: Ranks
    include: Names
    exclude: Names
    exact: bool
    no_pass: Names
    plan: Any  # a path, or the result of an earlier run
    latency: Any  # a path, or the result of `profile`
    raise_opset: bool
    iterations: int
    bias_correction: bool
    sequential: bool
    calibration_memory: float
    jobs: int
    cluster: str
    fit_device: str
    cache: PathLike
    no_cache: bool
    finetune: bool
    epochs: int
    augment: Names
    recipe: PathLike


class Inspect(Shaped, Where, total=False):
    """Keywords of `inspect`."""

    profile: bool
    ranks: bool
    form: str
    calibration: DataLike
    preprocess: PathLike
    jobs: int
    cache: PathLike
    no_cache: bool


class Verify(Judged, Shaped, Where, total=False):
    """Keywords of `verify`."""

    rtol: Bounds
    atol: Bounds
    check_error_stat: Mapping[str, str] | Names
    top_k: int
    reference_provider: str
    precision: str
    require_surgery: bool
    seed: int


class Benchmark(Timed, total=False):
    """Keywords of `benchmark`."""

    data: DataLike
    calibration: DataLike
    preprocess: PathLike
    raise_opset: bool
    batch: int | Sequence[int] | str
    input_shape: Shapes
    warmup: int
    iterations: int
    duration: float
    baseline: Any  # a path, or the result of an earlier benchmark
    fail_if_slower: float | str
    seed: int


class Profile(Shaped, Timed, total=False):
    """Keywords of `profile`."""

    output: PathLike
    form: str
    seed: int
    overwrite: bool


class Finetune(Judged, Where, Kept, total=False):
    """Keywords of `finetune`."""

    train: DataLike
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    weight_decay: float
    temperature: float
    label_weight: float
    feature_weight: float
    stability: float
    loss: str
    weights: str
    batch_norm: str
    augment: Names
    patience: int
    recipe: PathLike
    device: str
    mixed_precision: bool
