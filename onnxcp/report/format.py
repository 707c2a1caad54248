"""Facts of a report in words, and numbers with units."""

from collections.abc import Sequence

from onnxcp.graph import float_parts
from onnxcp.measure.disturbance import Disturbance
from onnxcp.results import (
    AccuracyRecord,
    BaselineRecord,
    FinetuneRecord,
    LatencyRecord,
    PassRecord,
    QuantizationRecord,
    Report,
    RivalRecord,
    SearchRecord,
    SiteRecord,
)
from onnxcp.runtime.cores import GIVEN, WORDS
from onnxcp.words import count, loss, megabytes, milliseconds, plural, worse

SHOWN_OUTPUTS = 4  # in one line


def shape(site: SiteRecord) -> str:
    """The shape of a site's weight as 64×32×3×3, "?" if unknown."""
    return "×".join(map(str, site.shape)) or "?"


def facts(report: Report) -> list[tuple[str, str]]:
    """The facts of a run, as label and value, in the order of the report."""
    model = report.model
    lines = [("model", f"{model.path}  →  {model.output or 'not written'}")]
    if model.written is not None:
        lines.append(("written", written(report)))
    if report.latency is not None:
        lines += latency(report.latency)
    if report.baseline.by is not None:
        lines.append(("original", baseline(report.baseline)))
    if report.accuracy is not None:
        lines.append(
            ("accuracy" if report.accuracy.measured else "outputs", accuracy(report.accuracy))
        )
        lines += judged_outputs(report.accuracy)
    if report.quantization is not None:
        lines += quantization(report.quantization, report.precision)
    if report.search is not None:
        lines += search(report.search)
    if report.settings.get("time_budget"):
        lines.append(("time", stages(report)))
    if report.finetune is not None:
        lines += finetune(report.finetune)
    if report.replaced:
        lines.append(("fitted to", fitted_to(report)))
    for point in report.pareto:
        lines.append(("front", f"{point.speedup:.2f}×, {worse(point.drop)}: {point.path}"))
    macs, parameters = model.macs_before, model.parameters_before
    lines += [
        ("multiply-adds", _change(macs, model.macs_after)),
        ("parameters", _change(parameters, model.parameters_after)),
    ]
    if report.passes is not None:
        lines += passes(report.passes)
    else:
        lines.append(("replaced", f"{len(report.replaced)} of {len(report.sites)} layers"))
    if model.still_read:
        text = "stay in the file beside their chains, because other layers read them"
        lines.append(("", f"weights of {', '.join(model.still_read)} {text}"))
    if model.shortcuts:
        text = "strided slices with padding, as convolutions that compute the same"
        lines.append(("shortcuts", f"{text}: {', '.join(model.shortcuts)}"))
    if report.verification is not None:
        seen, limit = report.verification.relative_l2, report.verification.tolerance
        lines.append(("surgery", f"exact to rounding: relative L2 {seen:.1e} (limit {limit:.0e})"))
    return lines


def passes(records: Sequence[PassRecord]) -> list[tuple[str, str]]:
    """For each exact pass: its effect, in how many places, and its speed-up."""
    lines = []
    for record in records:
        where = plural(record.places, "place")
        label = "pass" if record.kept else "not kept"
        lines.append((label, f"{record.name}, {where}, {record.reason}: {record.words}"))
    return lines


def stages(report: Report) -> str:
    """The time of each stage in seconds, the longest first, and the time budget."""
    longest = sorted(report.stages.items(), key=lambda stage: -stage[1])
    parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in longest if seconds >= 0.5)
    total, budget = sum(report.stages.values()), report.settings["time_budget"]
    return f"{total:.0f} s of {budget:.0f}" + (f": {parts}" if parts else "")


def written(report: Report) -> str:
    """What was written, its precision, and its size before and after."""
    model = report.model
    kind = (model.written or "").replace("in float", f"in {report.precision}")
    if report.precision not in kind:
        kind += f", {report.precision}"
    return f"{kind}, {megabytes(model.bytes_before)} → {megabytes(model.bytes_after)} MB"


def judged_outputs(found: AccuracyRecord) -> list[tuple[str, str]]:
    """The change of each output, the largest first; empty for a single output."""
    if len(found.outputs) < 2:
        return []
    ordered = sorted(found.outputs, key=lambda o: -o.change)
    first = ordered[:SHOWN_OUTPUTS]
    shown = ", ".join(f"{output.name} {output.change:.2%}" for output in first)
    more = f" and {len(ordered) - len(first)} more" if len(ordered) > len(first) else ""
    unused = [output.name for output in found.outputs if output.after is None and found.measured]
    note = f"; {found.metric} does not use {', '.join(unused)}" if unused else ""
    return [("changed by", f"{shown}{more} (relative L2 of each output){note}")]


def baseline(found: BaselineRecord) -> str:
    """The evaluation of the original, before any change."""
    value, of = found.value or 0.0, f"on {found.samples} samples"
    if found.by == "first normalization":
        return f"fed {value:.2g} times what {found.by} expects, {of}"
    if found.by == "classes named":
        return f"names classes with {value:.2f} nats of entropy, {of}"
    guess = "" if found.chance is None else f", a guess {found.chance:.4g}"
    return f"{found.by} {value:.4g} {of}{guess}"


def quantization(found: QuantizationRecord, precision: str) -> list[tuple[str, str]]:
    """The int8 scheme, the accuracy of the chains before quantization, and the alternatives."""
    lines, scheme = [], found.scheme
    if precision == "int8":
        by = "by channel" if scheme["per_channel"] else "by tensor"
        how = f"{scheme['activations']} activations, {scheme['weights']} weights {by}"
        ranges = f"ranges by {scheme['method']} of {found.samples} samples"
        lines.append(("int8", f"{how}; {ranges}; times of layers are of int8, too"))
    if found.chained is not None:
        lines.append(("chains alone", loss(found.chained)))
    lines += [("rival", rival(other)) for other in found.rivals]
    return lines


def rival(found: RivalRecord) -> str:
    """An alternative that was not written, with its speed and loss."""
    speed = "not timed" if found.speedup is None else f"{found.speedup:.2f}×"
    text = f"{found.name}: {speed}, {worse(found.drop)}"
    if not found.within:
        return f"{text}, over the budget"
    if found.behind is None:
        return text
    ratio, low, high = found.behind
    return f"{text}; this is {ratio:.2f}× faster (95 % {low:.2f} to {high:.2f})"


def fitted_to(report: Report) -> str:
    """The data that the errors in the table refer to."""
    samples = report.settings.get("calibration_samples", 0)
    if not samples:
        return "the weights alone; <<calibration>> or <<data>> fits to the real inputs of layers"
    order = ", one layer after the other" if report.settings.get("sequential") else ""
    return f"the inputs of layers on {samples} samples{order}"


def search(found: SearchRecord) -> list[tuple[str, str]]:
    """How the plan was found, and how predicted losses and times compare with measured ones."""
    counts = found.samples
    split = (
        f"search set of {counts['search']} samples; evaluation set of {counts['final']} others, "
        f"for {plural(found.tried, 'plan')}"
        if found.held_out
        else f"search and evaluation on the same {counts['search']} samples"
    )
    text = f"{found.strategy}, {plural(len(found.judged), 'plan')} judged"
    lines = [("search", f"{text} in {found.seconds:.0f} s; {split}")]
    ratios = [p.change / p.predicted for p in found.judged if p.predicted and p.change]
    if ratios:
        lines.append(
            (
                "predictions",
                f"output change {min(ratios):.2f} to {max(ratios):.2f} times the predicted one; "
                f"{milliseconds(found.predicted_ms)} ms by the latency table",
            )
        )
    return lines


def finetune(found: FinetuneRecord) -> list[tuple[str, str]]:
    """The course of the training, and the result that there would be without it."""
    lines = []
    if found.before is not None:
        count = f"{found.samples['train']:,} samples"
        epochs = f"{plural(len(found.epochs) - 1, 'epoch')} on {count}, weights of epoch"
        text = f"{epochs} {found.best_epoch}; before: {loss(found.before)}"
        lines.append(("trained", text))
        if found.rounded:
            text = f"{plural(len(found.rounded) - 1, 'epoch')} more, with int8 rounding"
            best = min(found.rounded, key=lambda epoch: epoch.held_out)
            lines.append(("", text if best.number else f"{text}: none reduced the loss"))
    elif found.trials:
        lines.append(("trained", "no training made a faster plan fit the budget"))
    short = sum(t.epochs < found.recipe["epochs"] for t in found.trials)
    if found.trials:
        text = f"{plural(len(found.trials), 'training')}, {short} of them short"
        lines.append(("trainings", f"{text}, in {found.seconds:.0f} s"))
        if found.before is not None:
            lines.append(("untrained", _without(found)))
    return lines


def _without(found: FinetuneRecord) -> str:
    """The result of the search without training."""
    accuracy = found.without_accuracy
    if accuracy is None or found.without_speedup is None:
        return "no plan is within the budget"
    return f"another plan is found, {found.without_speedup:.2f}×, {loss(accuracy)}"


def _change(before: int, after: int) -> str:
    ratio = f" ({before / after:.2f}× fewer)" if 0 < after < before else ""
    return f"{count(before)} → {count(after)}{ratio}"


def latency(found: LatencyRecord) -> list[tuple[str, str]]:
    """The speed-up of the whole model with its interval, and the median latencies."""
    low, high = found.speedup_ci
    threads = plural(found.threads, "thread")
    if found.threads_from != GIVEN:
        threads += f" ({WORDS[found.threads_from]})"
    disturbance = Disturbance(found.disturbed, found.turns, found.by_processor).words()
    note = disturbance and f"; {disturbance}"
    before, after = found.before["p50"], found.after["p50"]
    return [
        (
            "speed-up",
            f"{found.speedup:.2f}× (95 % interval {low:.2f} to {high:.2f}{note})",
        ),
        (
            "latency",
            f"{milliseconds(before)} → {milliseconds(after)} ms median of {found.turns}, "
            f"{found.provider}, {threads}",
        ),
    ]


def accuracy(found: AccuracyRecord) -> str:
    """The accuracy before and after with its interval and budget; else the change of outputs."""
    budget = "not judged" if found.budget is None else f"budget {found.budget:.4g}"
    if found.before is None or found.after is None or found.drop_ci is None:
        return f"changed by {found.drop:.4f} (relative L2, {found.data}, {budget})"
    low, high = found.drop_ci
    change = f"{found.worsening} {found.drop:+.4f}"
    return (
        f"{found.metric} {found.before:.4f} → {found.after:.4f}, {change} "
        f"(95 % {low:+.4f} to {high:+.4f}, {found.samples} samples, {budget})"
    )


def decision(site: SiteRecord) -> str:
    """The decision for a site: its form and rank, or that it is kept."""
    return site.decision if site.rank is None else f"{site.decision} rank {site.rank}"


def with_floats(site: SiteRecord) -> str:
    """The decision, and which part of the chain an int8 model computes in float."""
    return decision(site) + float_parts.words(site.floats or "")
