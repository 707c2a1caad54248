"""The report of `verify` as text and as a page."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from onnxcp import escape
from onnxcp.report.format import accuracy
from onnxcp.report.table import Page, Table, names, numbers, texts
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target
from onnxcp.verification.attribution import Steps
from onnxcp.verification.comparison import Comparison
from onnxcp.verification.difference import Difference
from onnxcp.verification.surgery import SiteCheck, Surgery
from onnxcp.words import ACCEPTED, plural

MAX_FAILURES = 20  # shown: a model changed by another tool can have hundreds
WIDE = 10_000  # characters: no text is broken over lines
UNJUDGED = "reported, not judged: give <<rtol>>/<<atol>> or <<max_drop>>"


OUTPUTS = (
    names("output"),
    *numbers("relative L2", "SNR dB", "cosine", "max error", "mean error", "top-1 agreement"),
)
CHAINS = (names("layer"), texts("form"), *numbers("rank", "kernel error", "relative L2"))


def page(found: Comparison) -> Page:
    """The comparison as a page: verdict, facts, and a row per output and per chain."""
    failed = f"FAILED, {plural(len(found.failures), 'failure')}"
    facts = [("reference", found.reference), ("candidate", found.candidate)]
    facts.append(("surgery", _surgery(found.surgery, WIDE)[0].removeprefix("surgery: ")))
    if found.accuracy is not None:
        facts.append(("accuracy", accuracy(found.accuracy)))
    elif not found.is_judged:
        facts.append(("approximation", UNJUDGED))
    facts += [("", note) for note in found.notes]
    accepted = () if found.baseline.finding is None else (f"{ACCEPTED}: {found.baseline.finding}",)
    tables = [
        Table(OUTPUTS, [_output_row(o) for o in _outputs(found)], "Outputs"),
        Table(CHAINS, [_chain_row(s) for s in found.surgery.sites], "Chains"),
    ]
    return Page(
        "passed" if found.ok else failed,
        _document(found),
        (*accepted, *found.failures),
        facts,
        [table for table in tables if table.rows],
    )


def _outputs(found: Comparison) -> Sequence[Difference]:
    return () if found.verdict is None else found.verdict.outputs


def _output_row(o: Difference) -> tuple[str, ...]:
    return (
        o.output,
        f"{o.relative_l2:.2e}",
        _snr(o),
        f"{o.cosine:.6f}",
        f"{o.max_abs:.2e}",
        f"{o.mean_abs:.2e}",
        "" if o.top_1 is None else f"{o.top_1:.4f}",
    )


def _chain_row(site: SiteCheck) -> tuple[str, ...]:
    rank = "?" if site.rank is None else str(site.rank)
    l2 = "" if site.relative_l2 is None else f"{site.relative_l2:.1e}"
    return site.name, site.form or "?", rank, f"{site.kernel_error:.4f}", l2


def _document(found: Comparison) -> dict[str, Any]:
    """The whole comparison as plain values."""
    return {
        "reference": found.reference,
        "candidate": found.candidate,
        "ok": found.ok,
        "failures": found.failures,
        "precision": found.precision,
        "provider": found.target.name,
        "provider_options": found.target.settings,
        "reference_provider": found.reference_target.name,
        "environment": environment(found.target),
        "surgery": {
            "checked": found.surgery.skipped is None,
            "ok": found.surgery.ok if found.surgery.skipped is None else None,
            **asdict(found.surgery),
        },
        "judged": found.is_judged,
        "tolerances": {name: asdict(rule) for name, rule in found.tolerances.items()},
        "samples": None if found.verdict is None else found.verdict.samples,
        "k": found.top_k,
        "outputs": [] if found.verdict is None else [asdict(o) for o in found.verdict.outputs],
        "steps": None if found.steps is None else asdict(found.steps),
        "notes": found.notes,
        "baseline": asdict(found.baseline),
        "accuracy": None if found.accuracy is None else asdict(found.accuracy),
    }


def as_text(found: Comparison, width: int) -> str:
    """The comparison as text of this width: surgery, approximation, and the verdict."""
    found = escape.shown(found)
    lines = [
        *_places(found, width),
        *_accepted(found, width),
        *_surgery(found.surgery, width),
        "",
        *_approximation(found, width),
        "",
    ]
    shown = found.failures[:MAX_FAILURES]
    lines += [_wrapped(f"FAILED {failure}", width, "    ") for failure in shown]
    if len(found.failures) > len(shown):
        lines.append(f"and {len(found.failures) - len(shown)} more; <<json>> lists all")
    return "\n".join(lines + (["passed"] if found.ok else []))


def _places(found: Comparison, width: int) -> list[str]:
    """The providers that the models ran on; empty for the CPU."""
    places = dict.fromkeys(_place(t) for t in (found.reference_target, found.target))
    if list(places) == ["cpu"]:
        return []
    sides = ("reference on", "candidate on") if len(places) == 2 else ("both on",)
    text = ", ".join(f"{side} {place}" for side, place in zip(sides, places, strict=True))
    return [_wrapped(text, width, "    "), ""]


def _accepted(found: Comparison, width: int) -> list[str]:
    """The problem of the reference itself that was accepted; empty if none."""
    if found.baseline.finding is None:
        return []
    return [_wrapped(f"! {ACCEPTED}: {found.baseline.finding}", width, "  "), ""]


def _place(target: Target) -> str:
    options = " ".join(f"{key}={value}" for key, value in sorted(target.settings.items()))
    return f"{target.name} ({options})" if options else target.name


def _surgery(found: Surgery, width: int) -> list[str]:
    if found.skipped is not None:
        return [_wrapped(f"surgery: {found.skipped}", width, "    ")]
    verdict = "exact to rounding" if found.ok else plural(len(found.failures), "failure")
    numbers = (
        f": relative L2 {found.relative_l2:.1e} (limit {found.tolerance:.0e})"
        if found.relative_l2 is not None and found.tolerance is not None
        else ""
    )
    what = [plural(len(found.sites), "chain")] if found.sites or not found.passes else []
    what += [f"exact passes {', '.join(found.passes)}"] if found.passes else []
    lines = [_wrapped(f"surgery: {'; '.join(what)}, {verdict}{numbers}", width, "    ")]
    if found.sites:
        name = max(10, min(max(len(s.name) for s in found.sites) + 2, width - 46))
        lines.append(
            f"  {'layer':<{name}}{'form':<9}{'rank':>6}{'kernel error':>14}{'rel. L2':>11}"
        )
        lines += [_site(site, name) for site in found.sites]
    if found.unchecked is not None:
        lines.append(_wrapped(f"  {found.unchecked}", width, "    "))
    return lines


def _site(site: SiteCheck, name: int) -> str:
    label, form, rank, error, l2 = _chain_row(site)
    label = shortened(label, name - 2)
    return f"  {label:<{name}}{form:<9}{rank:>6}{error:>14}{l2:>11}".rstrip()


def _approximation(found: Comparison, width: int) -> Iterable[str]:
    if found.verdict is None:
        yield "approximation: unknown, because the candidate does not run"
        return
    samples = plural(found.verdict.samples, "sample")
    words = "" if found.is_judged else f": {UNJUDGED}"
    yield _wrapped(f"approximation on {samples}{words}", width, "    ")
    for output in found.verdict.outputs:
        yield from _output(output, found.top_k, width)
    for note in found.notes:
        yield _wrapped(f"  {note}", width, "    ")
    if found.steps is not None:
        yield from _steps(found.steps, width)
    if found.accuracy is not None:
        yield _wrapped(f"  {accuracy(found.accuracy)}", width, "    ")


def _output(o: Difference, k: int, width: int) -> Iterable[str]:
    shape = "×".join(map(str, o.shape)) or "one number"
    yield f"  {shortened(o.output, width - len(shape) - 6)}  ({shape})"
    if math.isnan(o.relative_l2):
        return
    yield f"    relative L2 {o.relative_l2:<10.2e} SNR {_snr(o)} dB   cosine {o.cosine:.6f}"
    yield f"    error       max {o.max_abs:.2e}   mean {o.mean_abs:.2e}   median {o.median_abs:.2e}"
    if o.top_1 is not None:
        more = "" if o.top_k is None or k == 1 else f"   top-{k} {o.top_k:.4f}"
        yield f"    agreement   top-1 {o.top_1:.4f}{more}"
    if o.worst is not None and o.max_abs > 0:
        yield _wrapped(f"    worst       {o.worst}", width, " " * 16)


def _steps(found: Steps, width: int) -> Iterable[str]:
    """The error of every output in two steps: by weights and chains, then by rounding."""
    yield "  in two steps: first weights and chains, then rounding of activations"
    for pair in zip(found.weights, found.rounding, strict=True):
        if len(found.weights) > 1:
            yield f"    {shortened(pair[0].output, width - 4)}"
        for label, o in zip(("weights", "rounding"), pair, strict=True):
            if not math.isnan(o.relative_l2):
                yield f"    {label:<11} relative L2 {o.relative_l2:<10.2e} SNR {_snr(o)} dB"
            if o.worst is not None and o.max_abs > 0:
                yield _wrapped(f"{' ' * 16}worst at {o.worst.change()}", width, " " * 18)


def _snr(o: Difference) -> str:
    return "∞" if o.snr_db == math.inf else f"{o.snr_db:.1f}"


def shortened(name: str, limit: int) -> str:
    """A name of at most this many characters; the middle of a longer one is left out."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def _wrapped(text: str, width: int, indent: str) -> str:
    lead = len(text) - len(text.lstrip())
    return textwrap.fill(
        text.lstrip(),
        width,
        initial_indent=" " * lead,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
