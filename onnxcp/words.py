"""Numbers and losses in words."""

from onnxcp.results import AccuracyRecord

ACCEPTED = "the original was judged first, and accepted as it is"


def count(number: int | None) -> str:
    """A number with a unit, such as 12.3M for 12,345,678; "?" for None."""
    if number is None:
        return "?"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def milliseconds(value: float | None) -> str:
    """Milliseconds with three decimals below 10, else one; empty for None."""
    return "" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def megabytes(size: int) -> str:
    """Bytes as millions, with three significant figures below a gigabyte."""
    return f"{size / 1e6:.3g}" if size < 1e9 else f"{size / 1e6:.0f}"


def loss(found: AccuracyRecord) -> str:
    """The loss of a plan: its metric before and after, or the change of outputs."""
    if not found.measured:
        return f"outputs changed by {found.drop:.2%}"
    change = f"{found.worsening} {found.drop:+.4f}"
    return f"{found.metric} {found.before:.4f} → {found.after:.4f} ({change})"


def worse(drop: float) -> str:
    """A loss in words, for metrics of either direction."""
    return f"{abs(drop):.4f} {'better' if drop < 0 else 'worse'}"


def plural(number: int, word: str) -> str:
    """A number with its noun, which ends in "s" unless the number is 1."""
    return f"{number} {word}{'s' * (number != 1)}"
