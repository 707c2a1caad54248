"""Is an accuracy better than guessing."""

import numpy as np
import pytest

from onnxcp.measure.chance import Standing, chance, entropy, is_better, top


@pytest.mark.parametrize("samples", [20, 100, 1000])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_guesses_are_rarely_above_chance(samples, classes):
    rng = np.random.default_rng([samples, classes])
    hits = rng.binomial(samples, 1 / classes, size=400)
    above = sum(Standing(int(h), samples, 1 / classes).is_above for h in hits)
    assert above <= 0.05 * 400  # at most 2.5 % are expected


def test_a_share_is_within_its_interval():
    for hits in range(21):
        low, high = Standing(hits, 20, 0.1).interval
        assert 0 <= low <= hits / 20 <= high <= 1


def test_four_samples_cannot_tell_that_a_model_is_poor():
    assert not Standing(1, 4, 0.1).is_poor


def test_a_model_that_is_mostly_right_is_good():
    assert Standing(17, 20, 0.1).is_good


def test_naming_always_one_class_is_a_guess():
    labels = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    assert chance(np.zeros((100, 1), int), 10, labels) == pytest.approx(0.4)


def test_a_model_that_is_often_right_on_two_of_its_classes_is_better_than_a_guess():
    """Also where it is right less often than who knows that there are only these two."""
    labels = np.repeat([3, 5], 50)
    named = np.arange(100) % 10
    named[::2] = labels[::2]
    standing = Standing(int((named == labels).sum()), 100, chance(named[:, None], 10, labels))
    assert standing.share == pytest.approx(0.5, abs=0.1)
    assert standing.is_above


@pytest.mark.parametrize("spread", [[1], [0.9, 0.1], [0.5, 0.3, 0.2], [0.25] * 4])
def test_names_that_do_not_depend_on_the_sample_are_rarely_above_a_guess(spread):
    rng = np.random.default_rng(len(spread))
    labels = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    above = 0
    for _ in range(400):
        named = rng.choice(len(spread), p=spread, size=(100, 1))
        hits = int((named[:, 0] == labels).sum())
        above += Standing(hits, 100, chance(named, 10, labels)).is_above
    assert above <= 0.05 * 400


def test_where_one_class_prevails_naming_it_always_is_no_better_than_a_guess():
    labels = np.repeat([0, 1], [90, 10])
    named = np.zeros((100, 1), int)
    assert Standing(90, 100, chance(named, 2, labels)).is_above is False


def test_where_one_class_prevails_a_model_that_finds_the_others_is_better_than_a_guess():
    labels = np.repeat([0, 1], [900, 100])
    named = labels.copy()[:, None]
    named[::20] = 1 - named[::20]  # 95 % right, in both classes
    hits = int((named[:, 0] == labels).sum())
    assert Standing(hits, 1000, chance(named, 2, labels)).is_above


def test_samples_of_one_class_are_held_against_the_number_of_classes():
    labels, named = np.full(50, 3), np.full((50, 1), 3)
    assert chance(named, 10, labels) == pytest.approx(0.1)


def test_a_few_more_hits_are_not_clearly_more():
    given, other = np.zeros(100, bool), np.zeros(100, bool)
    given[:50], other[:55] = True, True
    assert not is_better(given, other)


def test_many_more_hits_are_clearly_more():
    given, other = np.zeros(100, bool), np.zeros(100, bool)
    given[:20], other[10:90] = True, True
    assert is_better(given, other)


def test_entropy_is_greatest_where_all_classes_are_named_alike():
    assert entropy(np.arange(8)) == pytest.approx(np.log(8))
    assert entropy(np.zeros(8, int)) == 0


def test_the_strongest_classes_come_first():
    assert top(np.array([[0.1, 0.7, 0.2]]), 2).tolist() == [[1, 2]]
