"""The evaluator scores every image once, in order; every metric agrees with plain NumPy."""

import math

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, lab2rgb
from skimage.metrics import structural_similarity

from knowhue.color import lab_to_rgb
from knowhue.data.loaders import ProcessShare, split_batches
from knowhue.evaluation.aggregation import class_metrics, score_rows
from knowhue.evaluation.evaluate import (
    ab_l1,
    ab_l1_vivid,
    confusion_matrix,
    evaluate,
    image_columns,
    mean_chroma,
    predict_class,
    predict_colour,
    predict_gray,
    to_rows,
)
from knowhue.evaluation.features import LPIPS
from knowhue.metric_table import RUN_METRICS
from knowhue.tensors import Batch, Prediction

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_prepared):
    return make_prepared(count=40, size_px=16)


def batches(prepared, size=4, share=None):
    return split_batches(prepared, "validation", size, share or ProcessShare(), CPU)


def test_gray_is_wrong_by_the_chroma(prepared):
    truth = torch.cat([batch.chroma for batch in batches(prepared)])
    assert evaluate(predict_gray, batches(prepared)).metrics["ab_l1"] == pytest.approx(
        truth.abs().mean().item()
    )
    assert evaluate(predict_gray, batches(prepared)).metrics["chroma_ratio"] == 0


def test_one_colour_everywhere(prepared):
    truth = torch.cat([batch.chroma for batch in batches(prepared)])
    colour = torch.tensor([10.0, -5.0])
    score = evaluate(predict_colour(colour), batches(prepared)).metrics["ab_l1"]
    assert score == pytest.approx((truth - colour.reshape(1, 2, 1, 1)).abs().mean().item())


def test_always_the_same_class(prepared):
    metrics = evaluate(predict_class((1.0, 0.0)), batches(prepared)).metrics
    labels = prepared.label[prepared.split == "validation"]
    assert metrics["accuracy"] == np.mean(labels == 0)
    assert metrics["balanced_accuracy"] == 0.5


def test_rows_are_ordered_whoever_computed_them(prepared):
    shares = [
        evaluate(predict_gray, batches(prepared, share=ProcessShare(rank, 3))).rows for rank in range(3)
    ]
    joined = evaluate(predict_gray, [], gather=lambda _: [row for share in shares for row in share])
    whole = evaluate(predict_gray, batches(prepared, size=64))
    assert joined.rows == whole.rows
    assert [row["index"] for row in whole.rows] == prepared.positions("validation").tolist()


def test_critic_gets_a_column(prepared):
    scored = evaluate(predict_gray, batches(prepared), critic=lambda batch, _: batch.position.float())
    assert scored.metrics["adversarial"] == prepared.positions("validation").mean()


def test_no_gradient_is_kept(prepared):
    weight = torch.ones(1, requires_grad=True)
    seen = []

    def predict(batch):
        answer = predict_gray(batch)
        seen.append((answer.chroma * weight).requires_grad)
        return answer

    evaluate(predict, batches(prepared))
    assert set(seen) == {False}


def test_per_class_scores_average_to_the_balanced_one(prepared):
    scored = evaluate(predict_class((0.0, 1.0)), batches(prepared))
    table = class_metrics(scored.rows, ["a", "b", "never seen"])
    assert table["never seen"] == {"images": 0}
    assert [table[name]["accuracy"] for name in "ab"] == [0, 1]
    assert sum(row["images"] for row in table.values()) == len(scored.rows)


COUNT, CLASSES = 12, 3


@pytest.fixture
def case():
    """A batch of 12, two of them unlabelled, and a prediction that is partly right."""
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0, 1, 2, -1, 0, 0, 2, 1, -1, 0, 0, 2])
    chroma, predicted = (30 * torch.randn(COUNT, 2, 13, 12, generator=generator) for _ in range(2))
    logits = 2 * torch.randn(COUNT, CLASSES, generator=generator)
    batch = Batch(torch.arange(COUNT), torch.full((COUNT, 1, 13, 12), 50.0), chroma, label, torch.ones(COUNT))
    return batch, Prediction(predicted, logits)


def part(case, chosen):
    batch, prediction = case
    return Batch(*(t[chosen] for t in batch[:5])), Prediction(*(t[chosen] for t in prediction[:2]))


def colour_reference(true, predicted):
    """The slow colour scores by scikit-image and numpy."""
    both = [
        np.concatenate((np.full_like(x[:, :1], 50), x), 1).transpose(0, 2, 3, 1) for x in (true, predicted)
    ]
    true_rgb, predicted_rgb = (lab2rgb(lab) for lab in both)
    pairs = list(zip(true_rgb, predicted_rgb, strict=True))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    signed, signed_true = (np.array([hasler(x) for x in rgb]) for rgb in (predicted_rgb, true_rgb))
    return {
        "ciede2000": deltaE_ciede2000(*both).mean(),
        "psnr_rgb": np.mean([-10 * np.log10(np.mean((x - y) ** 2)) for x, y in pairs]),
        "ssim_rgb": np.mean([structural_similarity(x, y, channel_axis=-1, **options) for x, y in pairs]),
        "colourfulness": signed.mean(),
        "colourfulness_absolute": np.mean([hasler(x, np.abs) for x in predicted_rgb]),
        "colourfulness_difference_of_means": abs(signed.mean() - signed_true.mean()),
        "mean_colourfulness_difference": np.abs(signed - signed_true).mean(),
    }


def hasler(rgb, convention=np.asarray):
    red, green, blue = np.moveaxis(255 * rgb, -1, 0)
    first, second = convention(red - green), convention((red + green) / 2 - blue)
    return np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean())


def reference(case):
    """The same scores without torch."""
    batch, (predicted, logits, *_) = case
    true, predicted, logits = batch.chroma.numpy(), predicted.numpy(), logits.double().numpy()
    label = batch.label.numpy()
    known = label >= 0
    answer = logits.argmax(1)
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    recalls = [np.mean(answer[label == n] == n) for n in range(CLASSES)]
    vivid, true_vivid = (np.hypot(x[:, 0], x[:, 1]).mean() for x in (predicted, true))
    weighed = [
        np.average(abs(x - y).mean(0), weights=np.hypot(*y)) for x, y in zip(predicted, true, strict=True)
    ]
    probability = np.exp(log_probability).max(1)[known]
    places = np.clip(np.ceil(probability * 15) - 1, 0, 14)
    right = (answer == label)[known]
    return colour_reference(true, predicted) | {
        "ece": sum(abs((right - probability)[places == n].sum()) for n in range(15)) / known.sum(),
        "ab_l1": np.abs(predicted - true).mean(),
        "ab_l1_vivid": np.mean(weighed),
        "chroma_ratio": vivid / true_vivid,
        "mean_a": predicted[:, 0].mean(),
        "mean_b": predicted[:, 1].mean(),
        "accuracy": np.mean(answer[known] == label[known]),
        "balanced_accuracy": np.mean(recalls),
        "cross_entropy": -np.mean(log_probability[known, label[known]]),
        "adversarial": 0.25,
    }


def rows_of(case):
    batch, prediction = case
    rgb = [lab_to_rgb(batch.lightness, each) for each in (prediction.chroma, batch.chroma)]
    columns = image_columns(batch, prediction, rgb)
    return to_rows(columns | {"adversarial": torch.full((len(columns["index"]),), 0.25)})


def test_every_metric_is_its_reference(case):
    scores = score_rows(rows_of(case))
    assert scores.keys() == RUN_METRICS.keys() - {LPIPS} == reference(case).keys()  # see test_perceptual
    assert scores == pytest.approx(reference(case), rel=1e-4)


def test_the_error_of_vivid_pixels_counts_no_gray_ones():
    true = torch.zeros(3, 2, 2, 1)
    true[:2, 0, 0] = 30.0  # one pixel of two is vivid; the third image is gray
    timid, wrong_gray = torch.zeros(1, 2, 2, 1), true[:1].clone()
    wrong_gray[0, 1, 1] = 50.0
    assert ab_l1_vivid(torch.cat([timid, wrong_gray, timid]), true).tolist() == [15.0, 0.0, 0.0]


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1,) * 12, (11, 1)])
def test_batches_do_not_matter(case, sizes):
    rows = [row for chosen in torch.arange(COUNT).split(list(sizes)) for row in rows_of(part(case, chosen))]
    assert score_rows(rows) == pytest.approx(score_rows(rows_of(case)), rel=1e-6)


def test_order_does_not_matter(case):
    shuffled = rows_of(part(case, torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))))
    assert score_rows(shuffled) == pytest.approx(score_rows(rows_of(case)), rel=1e-6)


def test_unlabelled_images_count_for_colour_only(case):
    rows = rows_of(case)
    blank = [row for row in rows if row["label"] == -1]
    assert [(row["correct"], row["cross_entropy"]) for row in blank] == [(None, None)] * 2
    labelled = [row for row in rows if row["label"] >= 0]
    for name in ("accuracy", "balanced_accuracy", "cross_entropy"):
        assert score_rows(rows)[name] == score_rows(labelled)[name]
    assert score_rows(rows)["ab_l1"] != score_rows(labelled)["ab_l1"]


def test_confusion_counts_the_labelled(case):
    matrix = np.array(confusion_matrix(rows_of(case), CLASSES))
    batch, prediction = case
    expected = np.zeros((CLASSES, CLASSES), int)
    for label, answer in zip(batch.label.tolist(), prediction.logits.argmax(1).tolist(), strict=True):
        expected[label, answer] += label >= 0
    assert np.array_equal(matrix, expected)
    accuracy = score_rows(rows_of(case))["accuracy"]
    assert np.trace(matrix) / matrix.sum() == pytest.approx(accuracy)


@pytest.mark.parametrize("head", ["colour", "class"])
def test_a_head_that_is_not_there_is_not_scored(case, head):
    batch, (chroma, logits, *_) = case
    prediction = Prediction(chroma, None) if head == "colour" else Prediction(None, logits)
    scores = score_rows(to_rows(image_columns(batch, prediction)))
    assert {RUN_METRICS[name].task for name in scores} == {head}


@pytest.mark.parametrize("shape", [(12, 2, 6, 1), (1, 2, 6, 5), (12, 1, 6, 5), (12, 2, 5, 6)])
def test_nothing_is_broadcast(shape):
    with pytest.raises(ValueError, match=r"`predicted` should be of the shape of `true`, \(12, 2, 6, 5\)"):
        ab_l1(torch.zeros(shape), torch.zeros(12, 2, 6, 5))


def test_golden_values():
    assert ab_l1(torch.full((2, 2, 3, 3), 4.0), torch.full((2, 2, 3, 3), 1.0)).tolist() == [3.0, 3.0]
    three_four = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert mean_chroma(three_four).tolist() == [5.0]


def test_half_precision_predictions_are_scored_in_full(case):
    batch, prediction = case
    half = prediction.chroma.bfloat16()
    assert torch.equal(ab_l1(half, batch.chroma), ab_l1(half.float(), batch.chroma))


def test_no_labelled_image_gives_no_number(case):
    rows = [row for row in rows_of(case) if row["label"] == -1]
    assert math.isnan(score_rows(rows)["accuracy"])


def test_gray_truth_gives_a_finite_ratio():
    rows = [{"chroma": 1.0, "chroma_true": 0.0}]
    assert math.isfinite(score_rows([{"index": 0, "label": 0, **rows[0]}])["chroma_ratio"])
