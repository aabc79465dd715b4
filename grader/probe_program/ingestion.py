"""Probe program: asks a submission for labels in several ways that graders may use. Not part of the competition.

    python3 ingestion.py [--profile an2dl|strict] INPUT SUBMISSION OUTPUT        as the ingestion program is called

INPUT/images.npy (n, height, width, 3) uint8 -> OUTPUT/<probe>.npy, the labels in the images' own order, and
OUTPUT/progress.json: the error of each probe that failed, the seconds, and the peak memory after each. For the last
MISTAKES images it only saves the output of `predict_proba`, if the model has it -> OUTPUT/chances.npy.
It does not compare the answers: verdict.py does so outside the sandbox, where the submission cannot interfere.
"""

import contextlib
import json
import os
import resource
import sys
import time
import traceback

import numpy as np

SMALL = 4  # images that are labelled one at a time
MISTAKES = 0  # replaced by worker.probe


def questions(model, images: np.ndarray) -> list[tuple]:
    """(name, function to call, images) of each probe."""
    n = len(images)
    order = np.random.default_rng(0).permutation(n)

    def alone(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(model.predict(x[i : i + 1])).reshape(-1) for i in range(len(x))])

    def shuffled(x: np.ndarray) -> np.ndarray:
        labels = np.asarray(model.predict(x[order]))
        back = np.empty_like(labels)
        back[order] = labels
        return back

    return [
        ("again", model.predict, images),
        ("once_more", model.predict, images),
        ("twice", model.predict, np.concatenate([images, images])),
        ("half", model.predict, images[: n // 2]),
        ("shuffled", shuffled, images),
        ("alone", alone, images[:SMALL]),
        ("float32", model.predict, images.astype(np.float32)),
        ("float64", model.predict, images[: 8 * SMALL].astype(np.float64)),
        ("scaled", model.predict, (images / 255).astype(np.float32)),
    ]


def ask(progress: dict, output: str, name: str, question, images: np.ndarray) -> None:
    """Run one probe: save its labels or note its error, its seconds and the peak memory."""
    given, start = images.copy(), time.monotonic()
    try:
        np.save(os.path.join(output, f"{name}.npy"), np.asarray(question(given)), allow_pickle=False)
    except Exception as error:
        traceback.print_exc()
        progress["errors"][name] = f"{type(error).__name__}: {error}"[:500]
    progress["seconds"][name] = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    progress["memory"][name] = peak // 1024 if sys.platform == "darwin" else peak
    if not np.array_equal(given, images):
        progress["errors"]["changed"] = name


def main(profile: str, input_folder: str, submission: str, output: str) -> int:
    output = os.path.abspath(output)
    given = np.load(os.path.join(input_folder, "images.npy"))
    images, mistakes = given[: len(given) - MISTAKES], given[len(given) - MISTAKES :]
    progress = {"stage": "Model()", "images": len(images), "errors": {}, "seconds": {}, "memory": {}}

    def reach(stage: str) -> None:
        progress["stage"] = stage
        with open(os.path.join(output, "progress.json"), "w") as file:
            json.dump(progress, file)

    reach("Model()")
    sys.path.append(os.path.abspath(submission))
    if profile == "an2dl":
        os.chdir(submission)
    from model import Model

    model = Model()
    with contextlib.suppress(Exception):  # what fails here fails below, too
        model.predict(images[:2])  # a warm-up, not timed: it compiles and allocates
    for name, question, x in questions(model, images):
        reach(name)
        ask(progress, output, name, question, x)
    with contextlib.suppress(Exception):  # many models have no predict_proba; the grader does not ask for it
        np.save(os.path.join(output, "chances.npy"), np.asarray(model.predict_proba(mistakes)), allow_pickle=False)
    reach("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2], *sys.argv[3:6]))
