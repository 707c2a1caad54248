"""Array types that state their axes: jaxtyping's, or the plain array type without it.

Type checkers and tests read the axes, so that only developers need jaxtyping.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64
else:
    try:
        from jaxtyping import Float, Float64, Int64
    except ImportError:

        class Float:
            """`Float[np.ndarray, "T R"]` is `np.ndarray`."""

            def __class_getitem__(cls, stated: tuple[type, str]) -> type:
                return stated[0]

        Float64 = Int64 = Float

__all__ = ["Float", "Float64", "Int64"]
