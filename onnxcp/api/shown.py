"""A result that every format can show."""

from abc import ABC, abstractmethod

from onnxcp.errors import as_keywords
from onnxcp.report import WRITERS, Page


class Shown(ABC):
    """What the results of all verbs have in common."""

    __slots__ = ()

    @abstractmethod
    def _page(self) -> Page:
        """The result as every format shows it."""

    def to_markdown(self) -> str:
        """The result for a pull request or a wiki page."""
        return as_keywords(WRITERS[".md"](self._page()))

    def to_json(self) -> str:
        """The result as the command prints and writes it for programs."""
        return as_keywords(WRITERS[".json"](self._page()))
