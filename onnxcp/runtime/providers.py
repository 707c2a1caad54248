"""Where models run: an execution provider with its options and threads."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onnxcp.errors import UsageError
from onnxcp.options.target import TargetOptions
from onnxcp.runtime.cores import GIVEN, usable
from onnxcp.runtime.machine import cpu_flags
from onnxcp.runtime.ort import available
from onnxcp.runtime.provider_table import GRAPH, PROVIDERS, REDUCED, SUFFIX, WHOLE, Provider

if TYPE_CHECKING:
    import numpy as np

REMOTE = ("azure",)  # runs models on other machines


@dataclass(frozen=True, slots=True)
class Target:
    """Where models run: a provider, its options, and threads (0: all usable cores).

    `others` are providers for nodes that the first cannot run, in this order.
    """

    provider: Provider
    threads: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Provider, ...] = ()

    @classmethod
    def named(
        cls, names: str, threads: int = 0, options: Mapping[str, str] | None = None
    ) -> "Target":
        """A target by name of its provider, or of several, such as "xnnpack,cpu".

        Raises:
            UsageError: a provider or option is unknown, or `threads` is negative.
            MissingPackage: the provider is not in `PROVIDERS`, and ONNX Runtime is missing.
        """
        first, *others = [_row(name.strip().lower()) for name in names.split(",")]
        if threads < 0:
            raise UsageError(
                f"<<threads={threads}>>: must be at least 1, or 0 for all usable cores"
            )
        if first.known is not None:
            for key, value in (options or {}).items():
                _check(first, key, value)
        return cls(first, threads, options or {}, tuple(others))

    @classmethod
    def of(cls, options: TargetOptions) -> "Target":
        """The target of the options.

        Raises:
            UsageError: see `named`; or a provider option is not KEY=VALUE, or `cuda_graph` is
                given for another provider.
            MissingPackage: see `named`.
        """
        pairs = [text.partition("=") for text in options.provider_option]
        for key, equals, _ in pairs:
            if not key or not equals:
                raise UsageError(f"<<provider_option={key + equals!r}>>: write it as KEY=VALUE")
        given = {key: value for key, _, value in pairs}
        if options.cuda_graph is not None:
            if options.provider != "cuda":
                raise UsageError(
                    f"<<cuda_graph>>: provider {options.provider} has none; add <<provider=cuda>>"
                )
            given[GRAPH] = str(int(options.cuda_graph))
        return cls.named(options.provider, options.threads, given)

    @classmethod
    def recorded(cls, names: str, threads: int, options: Mapping[str, str]) -> "Target":
        """A target as recorded in a file; the installed ONNX Runtime need not have it."""
        first, *others = [
            PROVIDERS.get(name) or Provider(name, name + SUFFIX, REDUCED)
            for name in names.split(",")
        ]
        return cls(first, threads, options, tuple(others))

    @property
    def name(self) -> str:
        """The names of the providers, as on the command line."""
        return ",".join(row.name for row in (self.provider, *self.others))

    @property
    def count(self) -> int:
        """The number of threads that models run on."""
        return self.threads or usable().count

    @property
    def why_count(self) -> str:
        """What determines the number of threads: a key of `cores.WORDS`."""
        return GIVEN if self.threads else usable().why

    @property
    def settings(self) -> dict[str, str]:
        """All options passed to the provider."""
        row = self.provider
        threads = {row.threads: str(self.threads)} if row.threads and self.threads else {}
        return {**row.options, **threads, **self.options}

    @property
    def is_one_thread(self) -> bool:
        """Whether models compute only on the thread that runs them."""
        return self.name == "cpu" and self.count == 1

    @property
    def unhurried(self) -> "Target":
        """The same with all cores and without CUDA graph: for runs that are not timed."""
        return replace(self, threads=0).without(GRAPH)

    @property
    def exact(self) -> "Target":
        """The same in full precision, unless options override it: for outputs to compare."""
        return replace(self, options={**self.provider.exact, **self.options})

    @property
    def has_graph(self) -> bool:
        """Whether timed runs replay a CUDA graph."""
        return self.settings.get(GRAPH) == "1"

    def without(self, option: str) -> "Target":
        """The same without one option."""
        return replace(self, options={k: v for k, v in self.options.items() if k != option})

    @property
    def block(self) -> int:
        """The block of channels that kernels compute at once; ranks should be multiples of it.

        The CPU's convolutions use blocks of 16 channels with AVX-512, and of 8 on other x86
        (MLAS, NCHWc). 16 is right for tensor cores, and for unknown hardware.
        """
        if self.provider.name != "cpu" or "avx512f" in cpu_flags():
            return 16
        return 8 if platform.machine().lower() in ("x86_64", "amd64") else 16

    def tolerance(self, dtype: "np.dtype") -> float:
        """The relative L2 difference allowed between equivalent models of this dtype."""
        return self.provider.tolerance[dtype.name]


def _row(name: str) -> Provider:
    """A provider's row; a new one for a provider that only the installed runtime has."""
    if name in PROVIDERS:
        return PROVIDERS[name]
    offered = by_name(available())
    if name not in offered:
        names = dict.fromkeys((*PROVIDERS, *offered))
        raise UsageError(f"<<provider={name}>>: unknown; choose one of {', '.join(names)}")
    return Provider(name, offered[name], REDUCED)


def by_name(ort_names: Iterable[str]) -> dict[str, str]:
    """ONNX Runtime's names by onnxcp's names, of providers that run models on this machine."""
    short = {row.ort_name: row.name for row in PROVIDERS.values()}
    names = {short.get(n, n.removesuffix(SUFFIX).lower()): n for n in ort_names}
    return {name: n for name, n in names.items() if name not in REMOTE}


def _check(row: Provider, key: str, value: str) -> None:
    """Raises UsageError for an unknown option of the provider, or an invalid value."""
    options = row.known or {}
    shown = f"<<provider_option={key}={value}>>"
    if key not in options:
        choices = (
            f"choose one of {', '.join(options)}" if options else "it takes none; leave it out"
        )
        raise UsageError(f"{shown}: provider {row.name} has no such option; {choices}")
    kind = options[key]
    if isinstance(kind, tuple) and value not in kind:
        raise UsageError(f"{shown}: must be one of {', '.join(kind)}")
    if kind == WHOLE and not value.removeprefix("-").isdecimal():
        raise UsageError(f"{shown}: must be {WHOLE}")
