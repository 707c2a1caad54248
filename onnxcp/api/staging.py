"""What one call of a verb works with: its temporary folder, and the words its caller knows.

Models and samples in memory lie in the folder as files for as long as the call lasts. In what is
returned or raised they are called as the caller calls them: `model`, `data`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from onnxcp.api.models import ModelLike, model_file
from onnxcp.api.samples import DataLike, sample_specs
from onnxcp.errors import OnnxcpError, as_keywords
from onnxcp.escape import with_texts
from onnxcp.storage import temporary

IN_MEMORY = "in memory"  # the output of a call that writes none

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Staging:
    """The files of one call. `names` are the words for those that the caller did not name."""

    folder: Path
    names: dict[str, str] = field(default_factory=dict)

    def model(self, given: ModelLike, keyword: str = "model") -> Path:
        """The file of a model. Raises as `model_file` does."""
        return self._noted(model_file(given, keyword, self.folder), keyword)

    def samples(
        self, given: DataLike | None, keyword: str, model: Path, most: int | None = None
    ) -> tuple[str, ...]:
        """The SPECs of samples. Raises as `sample_specs` does."""
        specs = sample_specs(given, keyword, model, self.folder, most)
        for spec in specs:
            self._noted(Path(spec), keyword)
        return specs

    def output(self, given: Path | None, name: str) -> Path:
        """Where a model is to be written: the path that is given, or one in the folder."""
        if given is not None:
            return given
        path = self.folder / "output" / name
        path.parent.mkdir(exist_ok=True)
        self.names[str(path)] = IN_MEMORY
        return path

    def document(self, given: Any, keyword: str) -> Any:
        """A file as it is given, or that of a result which has a `document` to be read again."""
        text = getattr(given, "document", None)
        if text is None:
            return given
        path = self.folder / f"{keyword}.json"
        path.write_text(text, encoding="utf-8")
        return self._noted(path, keyword)

    def _noted(self, path: Path, keyword: str) -> Path:
        if path.parent == self.folder:
            self.names[str(path)] = keyword
        return path

    def as_given(self, value: Value) -> Value:
        """A value with every text in it in the caller's words."""
        return with_texts(value, self.words)

    def words(self, text: str) -> str:
        """A text in the caller's words."""
        for path, name in self.names.items():
            text = text.replace(path, name)
        return as_keywords(text)


@contextmanager
def staging() -> Iterator[Staging]:
    """The files of a call, which are gone when the block ends; an error that leaves it says what
    it says in the caller's words."""
    with temporary.folder() as folder:
        staged = Staging(folder)
        try:
            yield staged
        except OnnxcpError as error:
            error.args = (staged.words(error.text),)
            raise
