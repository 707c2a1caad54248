"""What `import onnxcp` promises."""

import pathlib

import onnxcp

MODEL = pathlib.Path(__file__).parents[2] / "models/digits.onnx"


def test_every_public_name_is_there():
    for name in onnxcp.__all__:
        assert getattr(onnxcp, name).__module__.startswith("onnxcp.")


def test_no_other_name_is():
    assert not hasattr(onnxcp, "numpy")


def test_optimize_is_a_function_too(tmp_path):
    settings = onnxcp.Settings(
        model=MODEL,
        output=tmp_path / "out.onnx",
        target=onnxcp.Target.named("cpu", 1),
        form="cp3",
        ranks=("block/conv1=0.5c",),
        turns=10,
    )
    report = onnxcp.optimize(settings)
    assert report.exit_code == 0
    assert [s.name for s in report.replaced] == ["block/conv1"]
    assert settings.output.is_file()
