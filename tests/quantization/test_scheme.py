import pytest

from onnxcp.errors import UsageError
from onnxcp.quantization.scheme import Scheme, fastest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activations": "int4"}, "activations 'int4' unknown; give uint8 or int8"),
        ({"weights": "float8"}, "weights 'float8' unknown"),
        ({"method": "entropy"}, "method 'entropy' unknown; give minmax or percentile or mse"),
        ({"activations": "int8", "weights": "uint8"}, "have no kernels"),
        ({"percentile": 50.0}, "percentile 50.0: give more than 50, at most 100"),
        ({"percentile": float("nan")}, "percentile nan"),
    ],
)
def test_what_there_is_not_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Scheme(**changes)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"avx2", "avx512_vnni"}, Scheme()),
        ("AMD64", {"avx_vnni"}, Scheme()),
        ("x86_64", {"avx2"}, Scheme(reduce_range=True)),
        ("aarch64", {"asimddp"}, Scheme(activations="int8")),
    ],
)
def test_the_fastest_safe_types_depend_on_the_machine(machine, flags, expected):
    assert fastest((), machine, frozenset(flags)) == expected


def test_nodes_left_in_float_are_part_of_it():
    assert fastest(["conv1", "*/cp/window"]).floats == ("conv1", "*/cp/window")
