"""Ingestion program: loads a submission's Model, has it label the images, saves the labels.

    python3 ingestion.py --profile an2dl|strict INPUT SUBMISSION OUTPUT

INPUT/images.npy (n, height, width, 3) uint8 -> OUTPUT/predictions.npy, what `Model().predict(images)` returned, and
OUTPUT/progress.json, the stage reached and the seconds of each stage. Profile an2dl changes into the submission's
folder first, so that relative paths to its files work; strict stays in the folder where the worker starts programs.
Needs only numpy. If the submission fails, prints its traceback and exits with status 1.
"""

import contextlib
import json
import os
import sys
import time
import traceback

import numpy as np


class Missing(list):
    """A finder for sys.meta_path that finds nothing and lists the modules that the submission failed to import."""

    def __init__(self, submission: str):
        self.submission = submission

    def find_spec(self, name, *_) -> None:
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame and frame.f_code.co_filename.startswith(self.submission):
            self.append(name)


class Progress(dict):
    """The stage reached and the seconds of each stage, kept in a file so that they survive a crash."""

    def __init__(self, path: str, **more):
        super().__init__(stage="start", seconds={}, **more)
        self.path, self.since = path, time.monotonic()

    def reach(self, stage: str, **more) -> None:
        """Note the stage that begins now."""
        now = time.monotonic()
        self["seconds"][self["stage"]], self.since = now - self.since, now
        self.update(stage=stage, **more)
        with open(self.path, "w") as file:
            json.dump(self, file)


def label(images: np.ndarray, path: str, progress: Progress) -> None:
    """Save what the submission's Model predicts. Raises what it raises; TypeError if it returns no array of numbers."""
    progress.reach("import model.py", images=len(images))
    from model import Model

    progress.reach("Model()")
    model = Model()
    progress.reach("predict")
    labels = model.predict(images)
    progress.reach("save predictions", returned=type(labels).__name__)
    array = np.asarray(labels)
    if array.dtype == object:
        raise TypeError(f"predict returned {progress['returned']}, which is no array of numbers")
    np.save(path, array, allow_pickle=False)
    progress.reach("done")


def main(profile: str, input_folder: str, submission: str, output: str) -> int:
    submission, output = os.path.abspath(submission), os.path.abspath(output)
    predictions, notes = f"{output}/predictions.npy", f"{output}/progress.json"
    for path in (predictions, notes):  # the submission may contain files with these names
        if os.path.lexists(path):
            os.remove(path)
    missing = Missing(submission)
    progress = Progress(notes, missing=missing)
    images = np.load(os.path.join(input_folder, "images.npy"))
    sys.path.append(submission)
    sys.meta_path.append(missing)  # asked last, when nothing else has found a module
    if profile == "an2dl":
        os.chdir(submission)
    try:
        label(images, predictions, progress)
    except BaseException as error:  # SystemExit too: a submission that exits has not predicted
        traceback.print_exc()
        progress.reach(progress["stage"], error=type(error).__name__, message=str(error)[:1000])
        return 1
    with contextlib.suppress(Exception):  # the submission may have closed or replaced stdout
        print(f"labelled {len(images)} images in {sum(progress['seconds'].values()):.1f} s, loading included")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[2:]))
