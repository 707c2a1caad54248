"""External data behind links: trusted as model hubs lay them out, and nowhere else."""

import os

import numpy as np
import onnx
import pytest

from onnxcp.errors import ModelError
from onnxcp.graph import io

pytestmark = pytest.mark.skipif(os.name != "posix", reason="makes links")
W = np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32)


def written(folder, location="m.onnx_data"):
    """A model with external data, in a folder."""
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv (x, w) }"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(W, "w"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "m.onnx"
    onnx.save_model(made, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def weights(path):
    return onnx.numpy_helper.to_array(io.load(path).proto.graph.initializer[0])


def hub(tmp_path):
    """Links in one folder, files that are called by their hashes in another one."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "onnx"
    written(blobs).rename(blobs / "1111")
    (blobs / "m.onnx_data").rename(blobs / "2222")
    snapshot.mkdir(parents=True)
    (snapshot / "m.onnx").symlink_to("../../../blobs/1111")
    (snapshot / "m.onnx_data").symlink_to("../../../blobs/2222")
    return snapshot / "m.onnx"


def beside(tmp_path):
    """Data that are a link to a file of the same folder."""
    path = written(tmp_path)
    (tmp_path / "m.onnx_data").rename(tmp_path / "real")
    (tmp_path / "m.onnx_data").symlink_to("real")
    return path


def second_name(tmp_path):
    """Data with a second hard link."""
    path = written(tmp_path)
    (tmp_path / "other").hardlink_to(tmp_path / "m.onnx_data")
    return path


@pytest.mark.parametrize("layout", [hub, beside, second_name])
def test_data_behind_links_that_came_with_the_model_are_read(layout, tmp_path):
    path = layout(tmp_path)
    np.testing.assert_array_equal(weights(path), W)
    assert io.load(path).notes == ()


def to_elsewhere(tmp_path):
    """A model that is no link, with data that are one out of its folder."""
    path = written(tmp_path / "model")
    (tmp_path / "secret").write_bytes(W.tobytes())
    (tmp_path / "model" / "m.onnx_data").unlink()
    (tmp_path / "model" / "m.onnx_data").symlink_to(tmp_path / "secret")
    return path


def hub_to_elsewhere(tmp_path):
    """A hub's model whose data are a link to a third folder."""
    path = hub(tmp_path)
    (tmp_path / "secret").write_bytes(W.tobytes())
    (path.parent / "m.onnx_data").unlink()
    (path.parent / "m.onnx_data").symlink_to(tmp_path / "secret")
    return path


def hub_by_path(tmp_path):
    """A hub's model that names its data by a path out of the folder of links."""
    path = hub(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../../../blobs/2222"
    path.resolve().write_bytes(proto.SerializeToString())
    return path


def loop(tmp_path):
    """Data that are a link to themselves."""
    path = written(tmp_path)
    (tmp_path / "m.onnx_data").unlink()
    (tmp_path / "m.onnx_data").symlink_to("m.onnx_data")
    return path


@pytest.mark.parametrize("layout", [to_elsewhere, hub_to_elsewhere, hub_by_path, loop])
def test_data_that_lie_elsewhere_are_refused(layout, tmp_path):
    with pytest.raises(ModelError, match="leaves the model's folder"):
        io.load(layout(tmp_path))
