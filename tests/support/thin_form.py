"""A form added from outside, as a pytest plugin: one class and one row.

    K[t, s, k]  =  Σ_r  window[r, t, k] · inputs[s, r]

runs as a 1×1 to few channels, then the window: channel SVD with inputs and outputs exchanged.
It fits in the plain norm whatever norm it is given, as a form may.
"""

import math
from dataclasses import replace

from onnxcp.chain import Stage, pointwise
from onnxcp.forms import FORMS
from onnxcp.forms.form import Form

SVD = FORMS["svd"]


class Thin(Form):
    name = "thin"
    summary = "1×1 to few channels, Y×X"

    def refuses(self, shape):
        return "a 1×1 kernel has no window; use svd" if math.prod(shape[2:]) == 1 else None

    def largest(self, shape):
        return SVD.largest(_exchanged(shape))

    def draw(self, shape, rank, rng):
        return SVD.draw(_exchanged(shape), rank, rng)

    def solve(self, problem):
        return SVD.solve(replace(problem, unit=problem.unit.swapaxes(0, 1), norm=None))

    def stages(self, factors, shape, geometry):
        inputs, window = factors
        first = pointwise("inputs", inputs.T, geometry.dimensions)
        return first, Stage("window", window.swapaxes(0, 1), geometry)

    def reconstruct(self, factors, shape):
        return SVD.reconstruct(factors, _exchanged(shape)).swapaxes(0, 1)

    def sensitivity(self, factors):
        return SVD.sensitivity(factors)

    def balance(self, factors):
        return SVD.balance(factors)


def _exchanged(shape):
    return (shape[1], shape[0], *shape[2:])


FORMS["thin"] = Thin()
