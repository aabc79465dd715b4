"""The probe: asks a submission for labels in several ways that graders may use. Not part of the competition.

worker.probe puts this text into the ingestion program, where its `label` replaces the one there. It saves the labels of
each probe in the images' own order -> OUTPUT/<probe>.npy, and notes in progress.json the error of each probe that
failed, its seconds, and the peak memory (KiB) after it. For the last MISTAKES images it only saves the output of
`predict_proba`, if the model has it -> OUTPUT/chances.npy. It does not compare the answers: verdict.py does so outside
the sandbox, where the submission cannot interfere.
"""

import contextlib
import os
import resource
import sys
import traceback

import numpy as np

SMALL = 4  # images that are labelled one at a time
MISTAKES = 0  # replaced by worker.probe


def questions(model, images: np.ndarray) -> list[tuple]:
    """(name, function to call, images) of each probe."""
    order = np.random.default_rng(0).permutation(len(images))

    def alone(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(model.predict(x[i : i + 1])).reshape(-1) for i in range(len(x))])

    def shuffled(x: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(x[order]))[np.argsort(order)]

    return [
        ("again", model.predict, images),
        ("once_more", model.predict, images),
        ("twice", model.predict, np.concatenate([images, images])),
        ("half", model.predict, images[: len(images) // 2]),
        ("shuffled", shuffled, images),
        ("alone", alone, images[:SMALL]),
        ("float32", model.predict, images.astype(np.float32)),
        ("float64", model.predict, images[: 8 * SMALL].astype(np.float64)),
        ("scaled", model.predict, (images / 255).astype(np.float32)),
    ]


def label(images: np.ndarray, path: str, progress) -> None:
    """Ask all questions. `progress`, of the ingestion program, takes the seconds of each stage and writes the notes."""
    output, known = os.path.dirname(path), len(images) - MISTAKES
    images, mistakes = images[:known], images[known:]
    errors, memory = {}, {}
    progress.reach("Model()", images=known, errors=errors, memory=memory)
    from model import Model

    model = Model()
    with contextlib.suppress(Exception):  # what fails here fails below, too
        model.predict(images[:2])  # a warm-up, not timed: it compiles and allocates
    for name, question, asked in questions(model, images):
        progress.reach(name)
        given = asked.copy()
        try:
            np.save(os.path.join(output, f"{name}.npy"), np.asarray(question(given)), allow_pickle=False)
        except Exception as error:
            traceback.print_exc()
            errors[name] = f"{type(error).__name__}: {error}"[:500]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
        memory[name] = peak // 1024 if sys.platform == "darwin" else peak
        if not np.array_equal(given, asked):
            errors["changed"] = name
    progress.reach("predict_proba")
    with contextlib.suppress(Exception):  # many models have no predict_proba; the grader does not ask for it
        np.save(os.path.join(output, "chances.npy"), np.asarray(model.predict_proba(mistakes)), allow_pickle=False)
    progress.reach("done")
