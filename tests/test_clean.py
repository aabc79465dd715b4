import numpy as np
import pytest

from training import clean, data


@pytest.fixture(scope="session")
def cells(training_set):
    images, labels = training_set
    return data.Cells(images, labels[:, 0].astype(np.int64))


def test_shared_file_by_pixels(cells):
    result = clean.audit(cells)
    by_reason = {}
    for record in result.removed:
        by_reason.setdefault(record["reason"], []).append(record["index"])
    assert by_reason["outlier"] == list(range(11959, 13759))
    assert len(by_reason["conflicting_label"]) == 2
    assert len(by_reason["duplicate"]) == 16
    assert set(cells.labels[by_reason["conflicting_label"]]) == {1, 6}
    assert len(np.unique(result.groups[:11959])) == 11959 - 17
    assert len(result.kept) == 11959 - 18
