"""Training: what it brings down, what it keeps, and that a killed run ends as another."""

import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx

from onnxcp.data.samples import Samples
from onnxcp.errors import UsageError, WorkError
from onnxcp.forms.solvers import cp_algebra
from onnxcp.torchgraph.module import Network
from onnxcp.training.augment import augmented
from onnxcp.training.loop import TrainingTask, rate, rate_scale, train
from onnxcp.training.losses import are_scores, distance, divergence, sensitivity
from onnxcp.training.recipe import Recipe

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((200, 3, 8, 8)).astype(np.float32)
KERNEL = RNG.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5
WORSE = KERNEL + 0.1 * np.random.default_rng(1).standard_normal(KERNEL.shape).astype(np.float32)
RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.01)


def model(kernel):
    """Conv, Relu, pooled to 8 class scores."""
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,8,8] x) => (float[N,8] y) {'
        " c = Conv <pads = [1,1,1,1]> (x, w) r = Relu (c) p = GlobalAveragePool (r)"
        " y = Flatten (p) }"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "w"))
    return made


def samples(images):
    return Samples(
        lambda numbers: {"x": images[list(numbers)]}, range(len(images)), None, "made up"
    )


def task(recipe=RECIPE, **changes):
    """A student that has to find back to its teacher's kernel."""
    teacher = Network(model(KERNEL), ())
    made = TrainingTask(
        network=Network(model(WORSE), ["w"]),
        teacher=teacher,
        training=samples(IMAGES[:160]),
        validation=samples(IMAGES[160:]),
        recipe=recipe,
    )
    return dataclasses.replace(made, **changes)


def test_training_comes_closer_to_the_original():
    found = train(task())
    assert [epoch.number for epoch in found.epochs] == [0, 1, 2, 3]
    assert found.epochs[found.best].held_out < 0.5 * found.epochs[0].held_out
    assert found.weights["w"].shape == KERNEL.shape
    assert found.stopped is None


@pytest.mark.parametrize("size", [1, 3])
def test_models_of_a_fixed_batch_learn_the_same(size):
    recipe = dataclasses.replace(RECIPE, epochs=1)
    free, fixed = train(task(recipe)), train(task(recipe, fixed_batch=size))
    np.testing.assert_allclose(fixed.weights["w"], free.weights["w"], rtol=1e-3, atol=1e-5)
    assert fixed.epochs[1].held_out == pytest.approx(free.epochs[1].held_out, rel=1e-3)


def test_a_training_that_only_makes_it_worse_keeps_what_there_was_and_says_so():
    found = train(task(network=Network(model(KERNEL), ["w"])))
    np.testing.assert_array_equal(found.weights["w"], KERNEL)
    assert found.best == 0
    assert "<<learning_rate>>" in found.stopped


def test_mixed_precision_comes_closer_too():
    found = train(task(dataclasses.replace(RECIPE, mixed_precision=True)))
    assert found.epochs[found.best].held_out < 0.5 * found.epochs[0].held_out
    assert found.weights["w"].dtype == np.float32


def test_the_same_seed_makes_the_same_weights():
    one, two, other = (train(task(dataclasses.replace(RECIPE, seed=s))) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.weights["w"], two.weights["w"])
    assert not np.array_equal(one.weights["w"], other.weights["w"])


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path):
    whole = train(task())
    kept = {"folder": tmp_path}

    def dies(phase, done, total):
        if phase.startswith("train, epoch 3") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(task(**kept, progress=dies))
    seen = []
    again = train(task(**kept, progress=lambda *told: seen.append(told[0])), resume=True)
    np.testing.assert_array_equal(again.weights["w"], whole.weights["w"])
    assert set(seen) == {"train, epoch 3 of 3"}


def test_a_loss_that_is_no_number_keeps_the_best_weights_till_then():
    def poisoned(outputs, labels):
        calls.append(1)
        return torch.tensor(math.nan if len(calls) > 12 else 0.0)

    calls = []
    found = train(task(user_loss=poisoned))
    assert "nan in epoch 2" in found.stopped
    assert found.best == 1
    assert np.isfinite(found.weights["w"]).all()


def test_weights_that_never_get_better_stay_as_they_came():
    wild = task(dataclasses.replace(RECIPE, learning_rate=10.0, clip=1e6, ema=0.0))
    before = wild.network.weights()["w"].detach().numpy().copy()
    found = train(wild)
    assert found.best == 0
    np.testing.assert_array_equal(found.weights["w"], before)


def test_patience_ends_what_gains_no_more():
    recipe = dataclasses.replace(RECIPE, learning_rate=10.0, clip=1e6, ema=0.0, patience=1)
    found = train(task(recipe))
    assert len(found.epochs) == 2
    assert "no gain" in found.stopped


def test_other_settings_do_not_take_up_a_training(tmp_path):
    train(task(folder=tmp_path))
    other = dataclasses.replace(RECIPE, epochs=4)
    with pytest.raises(WorkError, match="other settings"):
        train(task(other, folder=tmp_path), resume=True)


def test_a_damaged_checkpoint_is_said_to_be(tmp_path):
    (tmp_path / "training.pt").write_bytes(b"PK nothing")
    with pytest.raises(WorkError, match="damaged"):
        train(task(folder=tmp_path), resume=True)


def test_a_checkpoint_with_a_bit_flipped_in_its_weights_is_said_to_be_damaged(tmp_path):
    train(task(dataclasses.replace(RECIPE, epochs=1), folder=tmp_path))
    path = tmp_path / "training.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WorkError, match="damaged"):
        train(task(dataclasses.replace(RECIPE, epochs=1), folder=tmp_path), resume=True)


@pytest.mark.parametrize(
    ("how", "loss", "rate"),
    [
        ({}, 4.0, 4e-4),
        ({}, 0.25, 1e-4),
        ({}, 0.01, 2e-5),
        ({}, math.inf, 1e-3),
        ({"optimizer": "sgd"}, 0.01, 0.01),
        ({"learning_rate": 0.3}, 0.01, 0.3),
    ],
)
def test_a_rate_that_is_not_given_follows_what_there_is_to_win_back(how, loss, rate):
    assert Recipe(**how).peak_learning_rate(loss) == pytest.approx(rate)


def test_a_training_tells_the_rate_that_it_chose():
    found = train(task(Recipe(epochs=1, batch_size=16)))
    assert found.learning_rate == Recipe().peak_learning_rate(found.epochs[0].held_out) <= 1e-3


def test_what_no_training_wins_back_asks_for_no_steps():
    loss = train(task(Recipe(epochs=1, batch_size=16))).epochs[0].held_out
    found = train(task(Recipe(epochs=1, batch_size=16), irreducible_loss=0.75 * loss))
    assert found.learning_rate == pytest.approx(Recipe().peak_learning_rate(loss / 4))
    least = train(task(Recipe(epochs=1, batch_size=16), irreducible_loss=2 * loss))
    assert 0 < least.learning_rate < found.learning_rate


@pytest.mark.parametrize("by", [0.1, 10.0])
def test_steps_are_in_proportion_to_weights(by):
    """Steps of one size would move a kernel ten times as large a tenth as far, relatively."""
    moved = []
    for times in (1.0, by):
        recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.01, ema=0.0)
        given = task(recipe, network=Network(model(np.float32(times) * WORSE), ["w"]))
        given = dataclasses.replace(given, teacher=Network(model(np.float32(times) * KERNEL), ()))
        found = train(given)
        assert found.best == 1
        moved.append(np.linalg.norm(found.weights["w"] / times - WORSE))
    assert 0.5 < moved[1] / moved[0] < 2


def test_weights_of_no_size_are_moved_too():
    assert (
        rate_scale(torch.zeros(4, 4))
        == rate_scale(torch.zeros(4))
        == rate_scale(torch.ones(4))
        == 1.0
    )


def test_the_rate_rises_and_then_falls_to_nothing():
    recipe = Recipe(learning_rate=1.0, warmup=0.1)
    rates = [rate(step, 100, recipe) for step in range(100)]
    assert max(rates) == rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_divergence_is_zero_for_equal_scores_and_knows_probabilities():
    scores = torch.randn(5, 10)
    other = torch.randn(5, 10)
    assert divergence(scores, scores, 2.0, are_probabilities=False).item() == pytest.approx(
        0, abs=1e-6
    )
    given = divergence(scores, other, 2.0, are_probabilities=False).item()
    soft = divergence(scores.softmax(1), other.softmax(1), 2.0, are_probabilities=True).item()
    assert soft == pytest.approx(given, rel=1e-4)
    assert given > 0


def test_distance_does_not_depend_on_scale():
    one, two = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    assert distance([one], [two]).item() == pytest.approx(distance([9 * one], [9 * two]).item())


@pytest.mark.parametrize(
    ("shape", "yes"), [((4, 10), True), ((4, 10, 1, 1), True), ((4, 1), False)]
)
def test_scores_are_one_row_a_sample(shape, yes):
    assert are_scores(torch.zeros(shape)) is yes


def test_sensitivity_is_that_of_the_factors():
    rank, sizes = 4, (6, 5, 9)
    t, s, k = (RNG.standard_normal((size, rank)) for size in sizes)
    stages = [s.T.reshape(rank, 5, 1, 1), k.T.reshape(rank, 1, 3, 3), t.reshape(6, rank, 1, 1)]
    found = sensitivity([torch.from_numpy(stage) for stage in stages]).item()
    assert found == pytest.approx(cp_algebra.sensitivity((t, s, k)), rel=1e-5)


def test_augmentation_is_drawn_by_its_generator():
    images = torch.from_numpy(IMAGES[:16])
    made = [
        augmented(images, ("flip", "crop"), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert made[0].shape == images.shape


def test_a_flip_mirrors_about_half_of_the_images():
    images = torch.from_numpy(IMAGES)
    made = augmented(images, ("flip",), torch.Generator().manual_seed(0))
    same = (made == images).flatten(1).all(1)
    mirrored = (made == images.flip(3)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 60 < same.sum() < 140


def test_a_crop_moves_what_is_there_and_brings_in_zeros():
    images = torch.ones(50, 1, 16, 16)
    made = augmented(images, ("crop",), torch.Generator().manual_seed(0))
    rows = made.amax(3).sum(2)
    assert rows.min() == 14
    assert rows.max() == 16


def test_a_mixed_image_keeps_at_least_half_of_itself():
    images = torch.eye(64).reshape(64, 1, 8, 8)
    made = augmented(images, ("mix",), torch.Generator().manual_seed(0)).flatten(1)
    torch.testing.assert_close(made.sum(1), torch.ones(64))
    assert made.diagonal().min() >= 0.5
    assert made.diagonal().mean() < 0.9


def test_mixed_images_have_no_labels():
    with pytest.raises(UsageError, match="mix"):
        Recipe(augment=("mix",), label_weight=1.0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("temperature", -1.0),
        ("optimizer", "adam"),
        ("batch_norm", "on"),
        ("augment", ("spin",)),
        ("label_weight", -1.0),
        ("feature_weight", math.inf),
    ],
)
def test_a_setting_is_refused(setting, value):
    with pytest.raises(UsageError, match=setting):
        Recipe(**{setting: value})
