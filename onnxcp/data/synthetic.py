"""Synthetic inputs for runs without data.

Images have the 1/f amplitude spectrum of natural images (Field, JOSA A 4, 1987), with zero mean
and unit variance in every channel. Other float inputs are standard normal, integers are zero.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from onnxcp.data.preprocess import CHANNELS
from onnxcp.data.samples import Samples
from onnxcp.graph.input_specs import Feeds, Shape, TensorSpec


def synthetic(
    specs: Sequence[TensorSpec], shapes: Mapping[str, Shape], count: int, seed: int
) -> Samples:
    """`count` synthetic feeds of the given shapes; the same for the same seed."""

    def feed(number: int) -> Feeds:
        rng = np.random.default_rng([seed, number])
        return {s.name: _values(rng, shapes[s.name], s.dtype) for s in specs}

    def pick(numbers: Sequence[int]) -> Feeds:
        feeds = [feed(number) for number in numbers]
        return {
            n: np.concatenate([f[n] for f in feeds]) if feeds[0][n].ndim else feeds[0][n]
            for n in feeds[0]
        }

    return Samples(pick, range(count), None, "synthetic")


def _values(rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    noise = rng.standard_normal(shape)
    axes = _image_axes(shape)
    return (noise if axes is None else _with_natural_spectrum(noise, axes)).astype(dtype)


def _image_axes(shape: Shape) -> tuple[int, int] | None:
    if len(shape) != 4:
        return None
    if shape[1] in CHANNELS and min(shape[2:]) > 4:
        return 2, 3
    return (1, 2) if shape[3] in CHANNELS and min(shape[1:3]) > 4 else None


def _with_natural_spectrum(noise: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Noise with amplitude 1/f over the image axes, scaled to unit variance."""
    frequencies = [np.fft.fftfreq(noise.shape[a]) for a in axes]
    frequency = np.hypot(frequencies[0][:, None], frequencies[1][None, :])
    frequency[0, 0] = np.inf
    amplitude = np.expand_dims(1 / frequency, [a for a in range(noise.ndim) if a not in axes])
    image = np.fft.ifft2(np.fft.fft2(noise, axes=axes) * amplitude, axes=axes).real
    normalized: np.ndarray = image / image.std(axis=axes, keepdims=True)
    return normalized
