"""Fits on TensorLy's torch backend: the same code, the same results."""

import numpy as np
import pytest

from onnxcp.errors import MissingPackage, ProviderError
from onnxcp.forms import FORMS, Effort
from onnxcp.forms.device import named
from onnxcp.forms.norm import Norm

SHORT = {"sweeps": 12, "finish": 4, "corrections": 4, "polish": 6}


def covariance(size):
    rows = np.random.default_rng(1).standard_normal((3 * size, size))
    return rows.T @ rows


@pytest.mark.parametrize("form", ["cp3", "cp4"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_torch_gives_what_numpy_gives(form, weighted):
    pytest.importorskip("torch")
    kernel = np.random.default_rng(0).standard_normal((24, 16, 3, 3))
    norm = Norm.of(covariance(16 * 9)) if weighted else None
    one, two = (
        FORMS[form].fit(kernel, 20, norm, np.random.default_rng(2), Effort(**SHORT, device=d), None)
        for d in ("cpu", "torch")
    )
    assert one.error == pytest.approx(two.error, rel=1e-3)
    rebuilt = [FORMS[form].reconstruct(fit.factors, kernel.shape) for fit in (one, two)]
    assert np.linalg.norm(rebuilt[0] - rebuilt[1]) < 0.03 * np.linalg.norm(kernel)


def test_a_device_that_is_not_there_is_an_error_with_a_remedy():
    with pytest.raises((MissingPackage, ProviderError), match="--fit-device cuda"):
        named("cuda")


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives():
    kernel = np.random.default_rng(0).standard_normal((64, 64, 3, 3))
    norm = Norm.of(covariance(64 * 9))
    errors = [
        FORMS["cp3"].fit(kernel, 64, norm, np.random.default_rng(2), Effort(device=d), None).error
        for d in ("cpu", "cuda")
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-2)
