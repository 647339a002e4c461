"""One evaluator for models and baselines: every image once, in order."""

import numpy as np
import pytest
import torch

from knowhue.data.loaders import ProcessShare, split_batches
from knowhue.evaluation.evaluate import class_metrics, evaluate, predict_class, predict_colour, predict_gray

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
