"""Probe program: asks a submission for labels in the ways in which graders differ. Not part of the competition.

    python3 probe.py [--profile an2dl|strict] INPUT SUBMISSION OUTPUT

INPUT/images.npy (n, height, width, 3) uint8 -> OUTPUT/<probe>.npy, the labels in the images' own order, and
OUTPUT/progress.json: the error of each probe that failed, the seconds, and the memory before and after each.
mistakes.npy (m, 96, 96, 3) uint8 beside this file, if any -> OUTPUT/chances.npy, what `predict_proba` gives for them,
where the model has it.
It compares nothing: what the answers mean is judged outside, where the submission cannot reach (verdict.py).
"""

import contextlib
import json
import os
import resource
import sys
import time
import traceback

import numpy as np

SMALL = 4  # images that are asked for one at a time
HERE = os.path.dirname(os.path.abspath(__file__))


def main(profile: str, input_folder: str, submission: str, output: str) -> int:
    output = os.path.abspath(output)
    images = np.load(os.path.join(input_folder, "images.npy"))
    n = len(images)
    order = np.random.default_rng(0).permutation(n)
    progress = {"stage": "Model()", "images": n, "errors": {}, "seconds": {}, "memory": {}}

    def save() -> None:
        with open(os.path.join(output, "progress.json"), "w") as file:
            json.dump(progress, file)

    save()
    sys.path.append(os.path.abspath(submission))
    if profile == "an2dl":
        os.chdir(submission)
    start = time.monotonic()
    from model import Model

    model = Model()
    progress["seconds"]["load"] = time.monotonic() - start

    def alone(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(model.predict(x[i : i + 1])).reshape(-1) for i in range(len(x))])

    def shuffled(x: np.ndarray) -> np.ndarray:
        labels = np.asarray(model.predict(x[order]))
        back = np.empty_like(labels)
        back[order] = labels
        return back

    probes = [  # (name, what is asked, of which images)
        ("half", lambda x: model.predict(x[: n // 2]), images),
        ("again", model.predict, images),
        ("once_more", model.predict, images),
        ("shuffled", shuffled, images),
        ("alone", alone, images[:SMALL]),
        ("float32", model.predict, images.astype(np.float32)),
        ("float64", model.predict, images[: 8 * SMALL].astype(np.float64)),
        ("scaled", model.predict, (images / 255).astype(np.float32)),
    ]
    with contextlib.suppress(Exception):  # what fails here fails below, too
        model.predict(images[:2])  # compiles, allocates: not to be timed
    for name, ask, x in probes:
        progress["stage"] = name
        save()
        given = x.copy()
        start = time.monotonic()
        try:
            labels = np.asarray(ask(given))
            np.save(os.path.join(output, f"{name}.npy"), labels, allow_pickle=False)
        except Exception as error:
            traceback.print_exc()
            progress["errors"][name] = f"{type(error).__name__}: {error}"[:500]
        progress["seconds"][name] = time.monotonic() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
        progress["memory"][name] = peak // 1024 if sys.platform == "darwin" else peak
        if not np.array_equal(given, x):
            progress["errors"]["changed"] = name
    with contextlib.suppress(Exception):  # many models have no predict_proba; the grader does not ask for it
        mistakes = np.load(os.path.join(HERE, "mistakes.npy"))
        np.save(os.path.join(output, "chances.npy"), np.asarray(model.predict_proba(mistakes)), allow_pickle=False)
    progress["stage"] = "done"
    save()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2], *sys.argv[3:6]))
