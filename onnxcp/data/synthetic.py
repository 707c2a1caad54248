"""Made-up inputs where there is no data: images with the 1/f spectrum of natural ones, of zero
mean and unit variance in every channel."""

from collections.abc import Mapping, Sequence

import numpy as np

from onnxcp.data.preprocess import CHANNELS
from onnxcp.data.samples import Samples
from onnxcp.graph.input_specs import Feeds, Shape, TensorSpec


def synthetic(
    specs: Sequence[TensorSpec], shapes: Mapping[str, Shape], count: int, seed: int
) -> Samples:
    """`count` made-up samples (batches of the given shapes), the same for the same seed."""

    def one(number: int) -> Feeds:
        rng = np.random.default_rng([seed, number])
        return {s.name: _made_up(rng, shapes[s.name], s.dtype) for s in specs}

    def pick(numbers: Sequence[int]) -> Feeds:
        made = [one(number) for number in numbers]
        return {
            n: np.concatenate([m[n] for m in made]) if made[0][n].ndim else made[0][n]
            for n in made[0]
        }

    return Samples(pick, range(count), None, "synthetic")


def _made_up(rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    noise = rng.standard_normal(shape)
    axes = _image_axes(shape)
    return (noise if axes is None else _natural(noise, axes)).astype(dtype)


def _image_axes(shape: Shape) -> tuple[int, int] | None:
    if len(shape) != 4:
        return None
    if shape[1] in CHANNELS and min(shape[2:]) > 4:
        return 2, 3
    return (1, 2) if shape[3] in CHANNELS and min(shape[1:3]) > 4 else None


def _natural(noise: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Noise with amplitude 1/f over the image axes (Field, JOSA A 4, 1987)."""
    across = [np.fft.fftfreq(noise.shape[a]) for a in axes]
    frequency = np.hypot(across[0][:, None], across[1][None, :])
    frequency[0, 0] = np.inf
    falling = np.expand_dims(1 / frequency, [a for a in range(noise.ndim) if a not in axes])
    image = np.fft.ifft2(np.fft.fft2(noise, axes=axes) * falling, axes=axes).real
    natural: np.ndarray = image / image.std(axis=axes, keepdims=True)
    return natural
