"""`onnxcp verify`: are two models' outputs equal, and if not where and by how much."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown, width


def verify(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The original.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="What to check.")],
    data: options.Data = [],  # noqa: B006
    preprocess: options.Preprocess = "none",
    samples: options.Samples = None,
    rtol: Annotated[
        list[str],
        typer.Option(
            "--rtol", metavar="[OUTPUT:]X", help="Relative tolerance, of one output or all."
        ),
    ] = [],  # noqa: B006
    atol: Annotated[
        list[str],
        typer.Option(
            "--atol", metavar="[OUTPUT:]X", help="Absolute tolerance, of one output or all."
        ),
    ] = [],  # noqa: B006
    check_error_stat: Annotated[
        list[str],
        typer.Option(
            "--check-error-stat",
            metavar="[OUTPUT:]STAT",
            help="What the tolerance bounds: elemwise, max, mean or median.",
        ),
    ] = [],  # noqa: B006
    top_k: Annotated[
        int, typer.Option("--top-k", metavar="K", min=1, help="Strongest channels that agree.")
    ] = 5,
    metric: options.Metric = None,
    max_drop: options.MaxDrop = None,
    output_name: options.JudgedOutput = [],  # noqa: B006
    accept_baseline: options.AcceptBaseline = False,
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    reference_provider: Annotated[
        str | None,
        typer.Option(
            "--reference-provider",
            metavar="NAME",
            help="Where the reference runs; default: on --provider too.",
        ),
    ] = None,
    threads: options.Threads = 0,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            rich_help_panel=options.TARGET,
            metavar="NAME",
            help="What CANDIDATE has to be, else exit code 2: float32, float16 or int8. Nothing "
            "is converted: the file is checked as it is.",
        ),
    ] = None,
    require_surgery: Annotated[
        bool,
        typer.Option(
            "--require-surgery",
            help="Fail where the surgery cannot be checked in full: a model of others, one in int8 "
            "or float16, tensors that training changed.",
        ),
    ] = False,
    batch: options.Batch = None,
    input_shape: options.InputShape = [],  # noqa: B006
    seed: options.Seed = 0,
    json: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """Check the surgery, and compare outputs on data, or on synthetic inputs without.

    Surgery: a model that onnxcp wrote must be the original but for its chains, and these must
    compute what they stand for. Approximation: reported, and judged by --rtol, --atol and
    --max-drop alone; NaN, infinity and unequal shapes always fail. Exit code 1 is a failure.

    Of an int8 CANDIDATE the surgery is for its float model to show. Its error comes in two
    steps, what its weights bring and what the rounding of activations adds; limits hold for both
    together.
    """
    with errors_as_lines(verbose):
        from onnxcp.quantization.precision import named
        from onnxcp.report import verify as findings
        from onnxcp.verification import comparison, tolerances

        sources = options.sources(data, preprocess, batch, input_shape, samples=samples, seed=seed)
        target = options.target(provider, provider_option, threads).exact
        elsewhere = reference_provider not in (None, provider)
        other = options.target(reference_provider or "", [], threads) if elsewhere else target
        bounds = comparison.Bounds(
            tolerances.parse(rtol, atol, check_error_stat),
            options.metric(metric),
            max_drop,
            tuple(output_name),
            top_k,
        )
        with progress_shown(quiet=False, verbose=verbose) as progress:
            found = comparison.run(
                reference,
                candidate,
                sources,
                target,
                other.exact,
                bounds=bounds,
                accept_baseline=accept_baseline,
                precision=None if precision is None else named(precision),
                require_surgery=require_surgery,
                progress=progress,
            )
        typer.echo(findings.as_json(found) if json else findings.as_text(found, width()))
        if not found.ok:
            raise typer.Exit(1)
