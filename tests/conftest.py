"""One thread for linear algebra: tests run side by side, and their matrices are small.
Shapes and dtypes in annotations are checked while tests run, and only then."""

from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

threadpool_limits(1)
install_import_hook(["onnxcp.forms", "onnxcp.conv", "onnxcp.accuracy"], "beartype.beartype")
