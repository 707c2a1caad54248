"""Options that several commands share, and what they are turned into."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from onnxcp.data.roles import Sources
    from onnxcp.measure.metrics import Metric as MetricRow
    from onnxcp.runtime.providers import Target

# groups of options, as help shows them
DATA, BUDGET, TARGET = "Data", "Budget", "Target"
PLAN, FITS, TRAINING = "Plan", "Fits", "Training"

Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        rich_help_panel=DATA,
        metavar="SPEC",
        help="Evaluation samples: an .npz (arrays named as the inputs, 'label' optional), an .npy, "
        "a folder of images (labels.csv: file,label; val_map.txt; or a folder for every class), a "
        "folder of test_data_set_*, or module:function, which returns feeds, (feeds, labels), or a "
        "CalibrationDataReader; PATH\\[a:b] for some of them. Repeatable.",
    ),
]
Calibration = Annotated[
    list[str],
    typer.Option(
        "--calibration",
        rich_help_panel=DATA,
        metavar="SPEC",
        help="Samples that calibrate and never judge. Repeatable.",
    ),
]
Train = Annotated[
    list[str],
    typer.Option(
        "--train",
        rich_help_panel=DATA,
        metavar="SPEC",
        help="Samples to train on, which never judge; without them those of --data, or that "
        "calibrate. Labels are not needed. Repeatable.",
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        rich_help_panel=TRAINING,
        metavar="FILE.json",
        help="More choices of the training, as a report of finetune gives them.",
    ),
]
Preprocess = Annotated[
    str,
    typer.Option(
        "--preprocess",
        rich_help_panel=DATA,
        metavar="NAME|FILE.json",
        help="none, unit (0..1), cifar10, imagenet, or a JSON recipe.",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples", rich_help_panel=DATA, metavar="N", help="Use the first N samples of --data."
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider",
        rich_help_panel=TARGET,
        metavar="NAME",
        help="Where models run: cpu, cuda, or any other that ONNX Runtime offers (see doctor); "
        "NAME,cpu lets nodes run elsewhere.",
    ),
]
ProviderOption = Annotated[
    list[str],
    typer.Option(
        "--provider-option",
        rich_help_panel=TARGET,
        metavar="K=V",
        help="An option of the provider. Repeatable.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        rich_help_panel=TARGET,
        metavar="NAME",
        help="float32 (models as they are), float16 on GPUs, or int8, which needs samples.",
    ),
]
RaiseOpset = Annotated[
    bool,
    typer.Option(
        "--raise-opset",
        rich_help_panel=TARGET,
        help="Let int8 raise an opset that is too old for it, to 13.",
    ),
]
CudaGraph = Annotated[
    bool | None,
    typer.Option(
        "--cuda-graph/--no-cuda-graph",
        rich_help_panel=TARGET,
        help="Time replays of a CUDA graph, without the launches of single kernels.",
        show_default=False,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        rich_help_panel=TARGET,
        metavar="N",
        help="Threads of the runtime; default: the cores that this process may use, by what it is "
        "pinned to and its quota.",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch", rich_help_panel=DATA, metavar="N", help="Size of a dynamic batch; default 1."
    ),
]
InputShape = Annotated[
    list[str],
    typer.Option(
        "--input-shape",
        rich_help_panel=DATA,
        metavar="NAME:1x3x224x224",
        help="Shape of a dynamic input. Repeatable.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, help="Of fits and synthetic inputs.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        rich_help_panel=FITS,
        metavar="N",
        min=1,
        help="Fits at once; default: usable cores.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        rich_help_panel=FITS,
        metavar="DIR",
        help="Where fits are kept between runs; default: $ONNXCP_CACHE or ~/.cache/onnxcp.",
    ),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", rich_help_panel=FITS, help="Compute every fit anew.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output files.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; print the verdict only.")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Log phases; -vv adds tracebacks.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout in place of text.")]
Iterations = Annotated[
    int,
    typer.Option(
        "--iterations", rich_help_panel=TARGET, metavar="N", min=8, help="Timed runs at most."
    ),
]
WorkDir = Annotated[
    Path | None,
    typer.Option("--work-dir", metavar="DIR", help="Keep all that is finished, to go on."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --work-dir.")]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        rich_help_panel=BUDGET,
        metavar="X",
        help="Largest drop of the metric: 0.01 absolute, 1% relative.",
    ),
]
AcceptBaseline = Annotated[
    bool,
    typer.Option(
        "--accept-baseline",
        rich_help_panel=BUDGET,
        help="Go on where the original is no better than a guess, or fed what it does not expect.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        rich_help_panel=BUDGET,
        metavar="NAME",
        help="top1, top5, psnr (with labels); agreement, cosine, relative-error, snr, max-error, "
        "mae (against the original); or module:function\\[:lower], called with all outputs by name "
        "and the labels.",
    ),
]
JudgedOutput = Annotated[
    list[str],
    typer.Option(
        "--output-name",
        rich_help_panel=BUDGET,
        metavar="NAME",
        help="An output that --metric judges; default: all. Repeatable.",
    ),
]


def metric(name: str | None) -> "str | MetricRow | None":
    """A metric's name, or the function that a module:function names.

    Raises:
        UsageError: there is no such function.
    """
    from onnxcp.measure.named_metric import metric_of

    return metric_of(name)


def forms(name: str) -> tuple[str, ...]:
    """Those to try for auto. Raises UsageError for an unknown one."""
    from onnxcp.errors import UsageError
    from onnxcp.forms import AUTO, FORMS

    if name != "auto" and name not in FORMS:
        raise UsageError(f"--form {name}: unknown; choose auto, {', '.join(FORMS)}")
    return AUTO if name == "auto" else (name,)


def precision(name: str | None, plan: Path | None = None) -> str:
    """What is asked for; else what a plan was made for.

    Raises:
        PlanError: not a plan.
        UsageError: an unknown precision.
    """
    from onnxcp.plan import from_json
    from onnxcp.quantization.precision import FLOAT32, named

    if name is None:
        return FLOAT32 if plan is None else from_json(plan)[1].precision
    return named(name)


def cache(folder: Path | None, off: bool) -> Path | None:
    """The folder of kept fits; None without one.

    Raises:
        UsageError: both options were given.
    """
    from onnxcp.errors import UsageError
    from onnxcp.storage.cache import default_folder

    if off and folder is not None:
        raise UsageError(f"--cache {folder} and --no-cache exclude each other: give one")
    return None if off else folder or default_folder(os.environ)


def jobs(given: int | None, cluster: str | None) -> int:
    """Fits at once on this machine.

    Raises:
        UsageError: a cluster was given too.
    """
    from onnxcp.errors import UsageError
    from onnxcp.runtime.cores import usable

    if cluster is not None and given is not None:
        raise UsageError(
            f"--jobs {given} and --cluster {cluster} exclude each other: a cluster does as many "
            "fits at once as its workers have threads"
        )
    return given or usable().count


def sources(
    data: list[str],
    preprocess: str,
    batch: int | None,
    input_shape: list[str],
    *,
    calibration: list[str] | None = None,
    train: list[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> "Sources":
    """Raises UsageError for an input shape that is none."""
    from onnxcp.data.roles import Sources
    from onnxcp.graph.input_specs import parse_shape

    shapes = dict(parse_shape(text) for text in input_shape)
    return Sources(
        tuple(data),
        tuple(calibration or ()),
        preprocess,
        samples,
        batch,
        shapes,
        seed,
        train=tuple(train or ()),
    )


def seconds(text: str | None) -> float | None:
    """A time as 90, 90s, 10m or 2h in seconds. Raises UsageError for none."""
    from onnxcp.errors import UsageError

    if text is None:
        return None
    sizes = {"s": 1, "m": 60, "h": 3600}
    number, size = (text[:-1], sizes[text[-1]]) if text[-1:] in sizes else (text, 1)
    try:
        found = float(number) * size
    except ValueError:
        found = float("nan")
    if not 0 < found < float("inf"):
        raise UsageError(f"--time-budget {text!r}: write it as 90, 10m or 2h")
    return found


def target(
    provider: str, options: list[str], threads: int, cuda_graph: bool | None = None
) -> "Target":
    """Raises UsageError for an unknown provider, an option that is no K=V, or a CUDA graph on
    another provider."""
    from onnxcp.errors import UsageError
    from onnxcp.runtime.providers import GRAPH, Target

    pairs = [text.partition("=") for text in options]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"--provider-option {key + equals!r}: write it as KEY=VALUE")
    given = {key: value for key, _, value in pairs}
    if cuda_graph is not None:
        if provider != "cuda":
            raise UsageError(f"--cuda-graph: provider {provider} has none; add --provider cuda")
        given[GRAPH] = str(int(cuda_graph))
    _warn_of_threads(threads)
    return Target.named(provider, threads, given)


def _warn_of_threads(threads: int) -> None:
    """Say it where more are asked for than can run at once."""
    from onnxcp.runtime.cores import WORDS, usable

    found = usable()
    if threads > found.count:
        typer.echo(
            f"warning: --threads {threads}: {found.count} can run at once, {WORDS[found.why]}; "
            "the others wait, and times are those of waiting",
            err=True,
        )


def refuse_formats(reports: list[Path]) -> None:
    """Raises UsageError for a format of a report that has no writer."""
    from onnxcp.errors import UsageError
    from onnxcp.report import WRITERS

    for path in reports:
        if path.suffix not in WRITERS:
            raise UsageError(f"--report {path}: name a file that ends in {' or '.join(WRITERS)}")
