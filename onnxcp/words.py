"""Numbers and losses as people read them."""

from onnxcp.results import AccuracyRecord

ACCEPTED = "the original was judged first, and accepted as it is"


def count(number: int | None) -> str:
    """12,345,678 as 12.3M."""
    if number is None:
        return "?"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def megabytes(size: int) -> str:
    """Bytes in millions, three figures of them."""
    return f"{size / 1e6:.3g}" if size < 1e9 else f"{size / 1e6:.0f}"


def loss(found: AccuracyRecord) -> str:
    """What a plan loses."""
    if not found.measured:
        return f"outputs changed by {found.drop:.2%}"
    change = f"{found.worsening} {found.drop:+.4f}"
    return f"{found.metric} {found.before:.4f} → {found.after:.4f} ({change})"


def worse(drop: float) -> str:
    """A loss in words that hold whichever direction of the metric is better."""
    return f"{abs(drop):.4f} {'better' if drop < 0 else 'worse'}"


def plural(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
