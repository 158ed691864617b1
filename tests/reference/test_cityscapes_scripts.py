"""The scores against cityscapesScripts' own evaluator, which reads the PNGs that a submission would consist of."""

import copy
import math

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import id2label

from datamodules.cityscapes import CITYSCAPES
from densevision.io import read_label, write_png
from densevision.metrics import ConfusionMatrix

K = CITYSCAPES.num_classes
TO_ID = np.zeros(256, np.uint8)  # what is no class is written as 0, unlabeled
TO_ID[:K] = CITYSCAPES.ids
TO_INDEX = np.full(256, 255, np.uint8)
TO_INDEX[list(CITYSCAPES.ids)] = range(K)


def official_scores(folder, pairs):
    """Write (prediction, truth) pairs of label ids as files, find and judge them as the script's main does."""
    truths = []
    for index, (prediction, truth) in enumerate(pairs):
        stem = f"aachen_{index:06d}_000019"
        write_png(folder / "results" / f"{stem}.png", prediction)
        truths.append(str(folder / "gtFine" / f"{stem}_gtFine_labelIds.png"))
        write_png(truths[-1], truth)
    args = copy.copy(official.args)
    args.predictionPath, args.predictionWalk = str(folder / "results"), None
    args.evalInstLevelScore = False  # needs np.in1d, which numpy 2.4 has no more
    args.quiet, args.JSONOutput = True, False
    return official.evaluateImgLists([official.getPrediction(args, truth) for truth in truths], truths, args)


def our_scores(pairs):
    matrix = ConfusionMatrix(CITYSCAPES.names)
    for prediction, truth in pairs:
        matrix.update(*(torch.from_numpy(TO_INDEX[ids])[None] for ids in (prediction, truth)))
    return matrix.compute()


def assert_equal(folder, pairs):
    expected, ours = official_scores(folder, pairs), our_scores(pairs)
    for name, score in ours.iou.items():
        assert score == pytest.approx(expected["classScores"][name], abs=1e-12, nan_ok=True), name
    assert ours.miou == pytest.approx(expected["averageScoreClasses"], abs=1e-12, nan_ok=True)
    return ours


def random_pair(rng, classes=range(K), predicted=None, size=(61, 83), agreement=0.6):
    """Ids of truth and prediction: random, agreeing in a part of the pixels."""
    truth = TO_ID[rng.choice(list(classes), size)]
    other = TO_ID[rng.choice(list(predicted or classes), size)]
    return np.where(rng.random(size) < agreement, truth, other), truth


def with_ignored(rng, pair, share=0.15):
    """The pair with some pixels of the truth, and whole rows, set to each of the ids that are not evaluated."""
    prediction, truth = pair
    ignored = [number for number in CITYSCAPES.ignored_ids if number >= 0]
    truth = np.where(rng.random(truth.shape) < share, rng.choice(ignored, truth.shape), truth).astype(np.uint8)
    truth[:5] = 0
    return prediction, truth


def dense(rng):
    return [random_pair(rng) for _ in range(3)]


def few_classes_a_picture(rng):
    return [random_pair(rng, rng.choice(K, 6, replace=False)) for _ in range(6)]


def class_nowhere(rng):
    return [random_pair(rng, set(range(K)) - {4, 12}) for _ in range(2)]


def class_only_predicted(rng):
    return [random_pair(rng, range(5), predicted=range(8)) for _ in range(2)]


def class_never_predicted(rng):
    return [random_pair(rng, range(8), predicted=range(5), agreement=0.0) for _ in range(2)]


def ignored_pixels(rng):
    return [with_ignored(rng, random_pair(rng)) for _ in range(3)]


def class_only_predicted_where_ignored(rng):
    prediction, truth = random_pair(rng, range(5))
    prediction[:9], truth[:9] = CITYSCAPES.ids[17], 3
    return [(prediction, truth)]


def pictures_of_different_sizes(rng):
    return [with_ignored(rng, random_pair(rng, size=size)) for size in ((1, 1), (40, 90), (128, 7), (33, 33))]


def one_picture_all_ignored(rng):
    nothing = random_pair(rng)[0], np.zeros((61, 83), np.uint8)
    return [random_pair(rng, range(7)), nothing]


def all_pictures_ignored(rng):
    return [(random_pair(rng)[0], np.full((61, 83), 4, np.uint8))]


def predictions_of_no_class(rng):
    prediction, truth = random_pair(rng)
    return [(np.where(rng.random(truth.shape) < 0.3, 0, prediction).astype(np.uint8), truth)]


CASES = [
    dense, few_classes_a_picture, class_nowhere, class_only_predicted, class_never_predicted, ignored_pixels,
    class_only_predicted_where_ignored, pictures_of_different_sizes, one_picture_all_ignored, all_pictures_ignored,
    predictions_of_no_class,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_scores_equal_the_official_ones(tmp_path, case):
    assert_equal(tmp_path, case(np.random.default_rng(0)))


def test_the_classes_are_those_that_are_evaluated():
    evaluated = [label for label in id2label.values() if not label.ignoreInEval]
    assert [
        (label.id, label.name, label.color) for label in sorted(evaluated, key=lambda label: label.trainId)
    ] == list(zip(CITYSCAPES.ids, CITYSCAPES.names, CITYSCAPES.colors, strict=True))


def test_scores_equal_the_official_ones_on_real_labels(tmp_path, test_data):
    files = sorted((test_data / "camvid_cityscapes" / "gtFine" / "val").rglob("*_labelIds.png"))
    assert len(files) == 101
    pairs = []
    for file in files[::4]:
        truth = read_label(file)
        # a clumsy painter: everything a bit to the right, small things lost, road where nothing was said
        prediction = cv2.medianBlur(np.roll(truth, 5, axis=1), 7)
        pairs.append((np.where(prediction == 0, 7, prediction).astype(np.uint8), truth))
    scores = assert_equal(tmp_path, pairs)
    assert sum(not math.isnan(score) for score in scores.iou.values()) == 11
    assert 0.3 < scores.miou < 0.9


def test_the_truth_itself_scores_one_over_the_classes_that_occur(tmp_path, test_data):
    files = sorted((test_data / "camvid_cityscapes" / "gtFine" / "val").rglob("*_labelIds.png"))[::20]
    truths = [read_label(file) for file in files]
    assert assert_equal(tmp_path, [(truth, truth) for truth in truths]).miou == 1.0
