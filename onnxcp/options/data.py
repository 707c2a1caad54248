"""What a command feeds to a model."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Samples that judge, calibrate or train, and the shapes of dynamic inputs.

    Raises:
        UsageError: a number of samples below 1.
    """

    PANEL: ClassVar[str | None] = "Data"

    data: Annotated[
        tuple[str, ...],
        Option(
            "Evaluation samples: an .npz (arrays named as the inputs, 'label' optional), an .npy, "
            "a folder of images (labels.csv: file,label; val_map.txt; or a folder for every "
            "class), a folder of test_data_set_*, or module:function, which returns feeds, "
            "(feeds, labels), or a CalibrationDataReader; PATH[a:b] for some of them. Repeatable.",
            metavar="SPEC",
        ),
    ] = ()
    calibration: Annotated[
        tuple[str, ...],
        Option("Samples that calibrate and never judge. Repeatable.", metavar="SPEC"),
    ] = ()
    train: Annotated[
        tuple[str, ...],
        Option(
            "Samples to train on, which never judge; without them those of <<data>>, or that "
            "calibrate. Labels are not needed. Repeatable.",
            metavar="SPEC",
        ),
    ] = ()
    preprocess: Annotated[
        str,
        Option(
            "{choices}, or a JSON recipe. unit scales to 0..1.",
            metavar="NAME|FILE.json",
            choices=("onnxcp.data.preset_table:PRESETS",),
            is_open=True,
        ),
    ] = "none"
    samples: Annotated[int | None, Option("Use the first N samples of <<data>>.", "N")] = None
    batch: Annotated[int | None, Option("Size of a dynamic batch; default 1.", "N")] = None
    input_shape: Annotated[
        tuple[str, ...],
        Option("Shape of a dynamic input. Repeatable.", metavar="NAME:1x3x224x224"),
    ] = ()

    def __post_init__(self) -> None:
        for option in ("samples", "batch"):
            number = getattr(self, option)
            if number is not None and number < 1:
                raise UsageError(f"<<{option}={number}>>: must be at least 1")
