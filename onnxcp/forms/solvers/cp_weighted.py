"""CP factors under the covariance of real inputs, kept from blowing up.

Minimises ‖K − K̂‖²_Σ + price · sensitivity. The output factor is a least-squares solution
at every step, so that only the input and window factors are searched (variable
projection); they move by L-BFGS, whose first guess of the inverse Hessian is what
alternating least squares would do if Σ were its nearest Kronecker product. One step costs
one product Σ·Z with the [K·S, R] matrix Z of input and window terms, and reaches in 50
steps on the networks tried what L-BFGS without that guess reaches in 200.

The price follows the optimum so that a per cent of squared error buys 1/RATE per cent of
sensitivity, or less where the error is small, whatever the scale of kernel and rank.

Sources: variable projection, Golub & Pereyra 1973; ALS as a preconditioner of quasi-Newton
methods, De Sterck & Howse, SIAM J. Sci. Comput. 40(2), 2018. Gradients are checked
numerically in tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.chain import Kernel, Sizes
from onnxcp.forms.solvers.cp_algebra import (
    Factors,
    Gram,
    Matrix,
    balance,
    column_energy,
    positions,
    sensitivity,
    sensitivity_of,
    spatial_mode,
)
from onnxcp.forms.solvers.cp_als import Iterates, least_squares, solver
from onnxcp.forms.solvers.cp_epc import weights
from onnxcp.forms.solvers.device import Held, named
from onnxcp.forms.solvers.effort import Effort
from onnxcp.forms.solvers.norm import Norm
from onnxcp.forms.solvers.weighted_problem import Problem

TINY = float(np.finfo(np.float64).tiny)
# The next three were chosen by float and int8 accuracy on CIFAR-10 training images.
RATE = 0.05  # squared error, relative, that an e-fold of sensitivity is worth
MOST_RATE = 0.8  # the same where the error is small,
NOISE = 0.05  # which is below this: what int8 adds to a layer's output is of its order
REFRESH = 10  # steps between two looks at the price
ALLOWED = 1.01  # of the sensitivity of the start, what the end may have
MEMORY = 10  # pairs that L-BFGS remembers
TRIALS = 12  # step lengths at most before a step counts as failed
SUFFICIENT = 1e-4  # of the predicted fall that a step must bring (Armijo)
RESOLVED = 1e-4  # squared error down to which single precision tells steps apart
RIDGE = 1e-6  # on the preconditioner's normal matrices, of unit diagonal


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Factors (T, S, *spatial), and the gradients of both objectives in all but the first."""

    factors: Factors
    error: float  # ‖K − K̂‖²_Σ
    calm: float  # sensitivity
    slopes: tuple[Factors, Factors]

    def objective(self, price: float) -> float:
        return self.error + price * self.calm

    def slope(self, price: float) -> Factors:
        return tuple(e + price * c for e, c in zip(*self.slopes, strict=True))


def polish(
    kernel: Kernel, spatial: Sizes, norm: Norm, start: Factors, effort: Effort
) -> tuple[Iterates, Iterates]:
    """Where `start` is with the output factor solved for, and where the search ends.

    At most `effort.polish` steps in single precision, and as many again in double precision
    where the error is too small for it. Converged when REFRESH steps gained less than
    `effort.settled` each. No more sensitive than the start, unless `effort.floor` is zero:
    exact factors are then worth more than calm ones, and may have to be more sensitive.
    """
    size = float(np.sqrt(norm.energy(kernel)))
    device = named(effort.device)
    problem = Problem.of(kernel / size, spatial, norm.of_type(np.float32), device)
    rough = evaluate(problem, balance(start)[1:], 0.0)
    bound = ALLOWED * _calm(rough) if effort.floor else np.inf
    found, used, converged = _search(problem, balance(rough.factors)[1:], effort, bound)
    if found.error < RESOLVED:
        problem = Problem.of(kernel / size, spatial, norm.of_type(np.float64), device)
        found, more, converged = _search(problem, found.factors[1:], effort, bound)
        used += more

    def scaled(point: Point) -> Factors:
        outputs, *rest = point.factors
        return balance((outputs * size, *rest))

    return (
        Iterates(scaled(rough), rough.error, 1, True),
        Iterates(scaled(found), found.error, used, converged),
    )


def evaluate(problem: Problem, inner: Factors, price: float) -> Point:
    """The best output factor for given input and window factors, and the gradients there."""
    inputs, *spatial = inner
    window, rank = positions(spatial), inputs.shape[1]
    held = [problem.device.put(f.astype(problem.precision)) for f in (window, inputs)]
    pairs = (held[0][:, None, :] * held[1][None, :, :]).reshape(-1, rank)
    weighed = problem.weigh(pairs)
    normal, product = (
        _taken(problem, made) for made in (pairs.T @ weighed, problem.product @ pairs)
    )
    energy = np.vstack([np.zeros(rank), column_energy(inner)])
    stiff = normal + np.diag(price * weights(problem.sizes, energy, 0))
    ridge = float(np.finfo(problem.precision).eps)
    outputs = least_squares(0, product, stiff, energy, ridge=ridge)
    gram = outputs.T @ outputs
    energy[0] = np.diag(gram)
    error = 1 - 2 * float(np.sum(product * outputs)) + float(np.sum(gram * normal))
    sides = [problem.device.put(f.astype(problem.precision)) for f in (gram, outputs)]
    cube = 2 * (weighed @ sides[0] - problem.product.T @ sides[1]).reshape(len(window), -1, rank)
    einsum = problem.device.einsum
    places = _taken(problem, einsum("ksr,sr->kr", cube, held[1]))
    by_error = [_taken(problem, einsum("ksr,kr->sr", cube, held[0]))]
    by_error += [spatial_mode(places, spatial, mode) for mode in range(len(spatial))]
    by_calm = [2 * f * weights(problem.sizes, energy, m) for m, f in enumerate(inner, 1)]
    slopes = (tuple(by_error), tuple(by_calm))
    calm = sensitivity_of(problem.sizes, energy)
    return Point((outputs, *inner), max(error, 0.0), calm, slopes)


def _taken(problem: Problem, held: Held) -> Matrix:
    """Off the device, in double precision."""
    matrix: Matrix = problem.device.take(held).astype(np.float64)
    return matrix


def _search(
    problem: Problem, inner: Factors, effort: Effort, bound: float
) -> tuple[Point, int, bool]:
    """L-BFGS steps from `inner`: the last point of a sensitivity up to `bound`, the steps taken,
    and whether it settled there. While sensitivity is above, its price doubles at every look."""
    point = evaluate(problem, inner, 0.0)
    price, pressure, pairs = 0.0, 1.0, list[Pair]()
    before, within, since, limit = None, point, REFRESH, REFRESH * effort.settled
    for used in range(effort.polish):
        if since >= REFRESH:
            is_calm, since = _calm(point) <= bound, 0
            within, pressure = (point, 1.0) if is_calm else (within, 2 * pressure)
            price = pressure * worth(point.error) / max(point.calm, TINY)
            settled = before is not None and _gain(before, point, effort) < limit
            if settled and is_calm:
                return point, used, True
            before = point
        moved = _step(problem, point, price, direction(problem, point, price, pairs))
        since += 1
        if moved is not None:
            pairs = _remembered(pairs, point, moved, price)
            point = moved
        elif pairs:
            pairs = []
        elif since > 1:
            since = REFRESH  # settled at a price that is out of date
        else:
            return (point if _calm(point) <= bound else within), used, True
    return (point if _calm(point) <= bound else within), effort.polish, False


def _calm(point: Point) -> float:
    """Sensitivity of the terms as they will be scaled."""
    return sensitivity(balance(point.factors))


def _remembered(pairs: list["Pair"], point: Point, moved: Point, price: float) -> list["Pair"]:
    change = _minus(moved.factors[1:], point.factors[1:])
    turn = _minus(moved.slope(price), point.slope(price))
    return [*pairs[1 - MEMORY :], (change, turn)] if _dot(change, turn) > 0 else pairs


def worth(error: float) -> float:
    """Squared error that an e-fold of sensitivity is worth: a share of the error that grows
    where the error is small, because noise, not the error, then decides what a layer gives."""
    return min(RATE * max(error, NOISE), MOST_RATE * error)


def _gain(before: Point, now: Point, effort: Effort) -> float:
    """How much better a point is, relative to its error, or to NOISE where that is larger and
    not only exact factors will do: what is below it is not worth many steps."""
    rate = worth(now.error) / max(now.error, TINY)
    fallen = np.log(max(before.error, TINY)) - np.log(max(now.error, TINY))
    calmed = np.log(max(before.calm, TINY)) - np.log(max(now.calm, TINY))
    share = min(1.0, now.error / NOISE) if effort.floor else 1.0
    return float(fallen + rate * calmed) * share


Pair = tuple[Factors, Factors]  # change of the point, change of the slope


def direction(problem: Problem, point: Point, price: float, pairs: Sequence[Pair]) -> Factors:
    """L-BFGS's two-loop recursion around the preconditioner."""
    left, shares = point.slope(price), list[float]()
    for change, turn in reversed(pairs):
        shares.append(_dot(change, left) / _dot(change, turn))
        left = _plus(left, turn, -shares[-1])
    heading = preconditioner(problem, point, price)(left)
    for (change, turn), share in zip(pairs, reversed(shares), strict=True):
        back = _dot(turn, heading) / _dot(change, turn)
        heading = _plus(heading, change, share - back)
    return tuple(-h for h in heading)


def preconditioner(problem: Problem, point: Point, price: float) -> Callable[[Factors], Factors]:
    """What alternating least squares would make of a slope, were Σ its Kronecker parts."""
    outputs, *inner = point.factors
    grams = [outputs.T @ outputs]
    grams += [f.T @ part @ f for f, part in zip(inner, problem.parts, strict=True)]
    energy = column_energy(point.factors)
    solvers = []
    for mode in range(1, len(grams)):
        normal: Gram = np.prod([g for m, g in enumerate(grams) if m != mode], axis=0)
        normal = normal + np.diag(price * weights(problem.sizes, energy, mode))
        solvers.append(solver(normal, ridge=RIDGE))

    def apply(slope: Factors) -> Factors:
        parts = zip(slope, problem.inverses, solvers, strict=True)
        return tuple(0.5 * inverse @ solve(part) for part, inverse, solve in parts)

    return apply


def _step(problem: Problem, point: Point, price: float, heading: Factors) -> Point | None:
    """The first point along a heading that falls enough, trying shorter and shorter steps.

    One too long for single precision makes infinities, is not lower and is shortened.
    """
    here, fall = point.objective(price), _dot(point.slope(price), heading)
    length = 1.0
    if not fall < 0:
        return None
    for _ in range(TRIALS):
        with np.errstate(over="ignore", invalid="ignore"):
            moved = evaluate(problem, _plus(point.factors[1:], heading, length), price)
        there = moved.objective(price)
        if there <= here + SUFFICIENT * length * fall:
            return moved
        bent = 2 * (there - here - length * fall)
        guess = -fall * length**2 / bent if bent > 0 else 0.0
        length = min(max(guess, 0.1 * length), 0.5 * length)
    return None


def _dot(one: Factors, two: Factors) -> float:
    return sum(float(np.vdot(a, b)) for a, b in zip(one, two, strict=True))


def _plus(one: Factors, two: Factors, times: float) -> Factors:
    return tuple(a + times * b for a, b in zip(one, two, strict=True))


def _minus(one: Factors, two: Factors) -> Factors:
    return _plus(one, two, -1.0)
