"""The local worker against Codabench's: layout, environment, command, status, logs."""

import numpy as np
import pytest

from grader import worker
from tests import submissions


@pytest.fixture
def rehearse(tmp_path):
    """rehearse(model.py or {name: contents}, **options) -> worker.Run, on 64 small cells."""

    def go(files, n=64, **options) -> worker.Run:
        images, labels = submissions.cells(n)
        zip_path = submissions.make_zip(tmp_path / "s.zip", files)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return worker.run_submission(zip_path, images, labels, folder, **options)

    return go


def test_a_good_submission_finishes_with_scores(rehearse):
    run = rehearse(submissions.GOOD)
    assert run.status == "Finished"
    assert run.scores == dict.fromkeys(worker.columns(), 1.0)
    assert (np.load(run.predictions) == submissions.cells()[1]).all()
