"""Real models, rewritten at forced ranks, pass `verify`; and with a fault planted they do not."""

from pathlib import Path

import numpy as np
import pytest
from odd_models import MODELS, Odd, optimized, path_of
from written import change_values, edited, verify

pytestmark = pytest.mark.slow

RESNETS = {
    "resnet20": Odd("cifar10/resnet20.onnx", 19, 19, 0),
    "resnet56": Odd("cifar10/resnet56.onnx", 55, 55, 0),
    "resnet18": Odd("imagenet/resnet18.onnx", 20, 17, 0),
}
SOME = {"resnet18": ("--include", "layer[12]*")}  # other layers are larger, and no other kind
# candy's images are 720×720: a minute of nothing new, and test_odd looks at its chains
EVERY = {key: odd for key, odd in {**MODELS, **RESNETS}.items() if key != "candy"}
QUICK = ("--rank", "*=0.25c", "--iterations", "8")


@pytest.mark.parametrize("key", EVERY)
def test_a_forced_rewrite_passes_and_a_flipped_weight_does_not(key: str, tmp_path: Path) -> None:
    odd, output = EVERY[key], tmp_path / "out.onnx"
    code, report = optimized(odd, tmp_path, *QUICK, *SOME.get(key, ()))
    if not odd.sites:
        assert code == 1
        return
    assert code == 0
    replaced = [row["name"] for row in report["sites"] if row["decision"] != "kept"]
    code, text = verify(path_of(odd), output, *odd.arguments)
    assert code == 0, text
    assert text.startswith(f"surgery: {len(replaced)} chain")
    assert "exact to rounding" in text
    edited(output, lambda proto: change_values(proto, first_weight(proto, replaced[0]), flipped))
    code, text = verify(path_of(odd), output, *odd.arguments)
    assert code == 1
    assert f"FAILED surgery: {replaced[0]}: the weights of stage" in text


def first_weight(proto, site):
    return next(n.input[1] for n in proto.graph.node if n.name.startswith(f"{site}/cp/"))


def flipped(values: np.ndarray) -> np.ndarray:
    values.ravel()[0] *= -1
    return values
