"""The confusion matrix against torchmetrics, against counting by hand, and at its edges."""

import math

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from glamlib.errors import InputError
from glamlib.evaluation.metrics import ConfusionMatrix


def test_equals_torchmetrics_over_several_uneven_updates() -> None:
    torch.manual_seed(0)
    matrix = ConfusionMatrix(6)
    jaccard = MulticlassJaccardIndex(6, average="none", ignore_index=255)
    macro = MulticlassAccuracy(6, average="macro", ignore_index=255)
    micro = MulticlassAccuracy(6, average="micro", ignore_index=255)
    for size in (3, 17, 40):
        label = torch.randint(0, 6, (2, size, size))
        prediction = torch.where(torch.rand(label.shape) < 0.6, label, torch.randint(0, 6, label.shape))
        label[torch.rand(label.shape) < 0.1] = 255
        matrix.update(prediction, label)
        for metric in (jaccard, macro, micro):
            metric.update(prediction, label)
    metrics = matrix.metrics()
    assert metrics["iou"] == pytest.approx(jaccard.compute().tolist(), abs=1e-6)
    assert metrics["miou"] == pytest.approx(jaccard.compute().mean().item(), abs=1e-6)
    assert metrics["mean_accuracy"] == pytest.approx(macro.compute().item(), abs=1e-6)
    assert metrics["pixel_accuracy"] == pytest.approx(micro.compute().item(), abs=1e-6)


def test_by_hand_with_an_absent_class_and_void() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 255, 1]))
    metrics = matrix.metrics()
    assert metrics["iou"][:3] == [1 / 2, 1 / 3, 0.0]  # class 2: predicted once, never true
    assert math.isnan(metrics["iou"][3])  # class 3: nowhere
    assert metrics["miou"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert metrics["pixel_accuracy"] == 2 / 4


def test_two_updates_are_one_data_set_not_an_average() -> None:
    """ANCHORS, trap 3: 0.6 over the data set where the average over updates would be 0.375."""
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]))
    matrix.update(torch.tensor([1, 1, 1, 1]), torch.tensor([1, 1, 1, 0]))
    assert matrix.metrics()["miou"] == pytest.approx(3 / 5)


def test_label_out_of_range_names_value_and_range() -> None:
    with pytest.raises(InputError, match=r"label value 7: allowed are 0 to 2 and 255"):
        ConfusionMatrix(3).update(torch.tensor([0]), torch.tensor([7]))
