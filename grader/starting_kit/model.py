"""The smallest submission that works: labels a cell by its mean colour, with numpy alone.

Zip this file and weights.npy together (zip submission.zip model.py weights.npy) and upload; then put your own network
into `__init__` and `predict`. With Keras: build the network in code, load `.weights.h5` from FOLDER, return argmax.
"""

import os

import numpy as np

FOLDER = os.path.dirname(os.path.abspath(__file__))  # the grader's working directory may be another


class Model:
    def __init__(self):
        self.means = np.load(os.path.join(FOLDER, "weights.npy"))  # (8, 3): mean red, green and blue of each class

    def predict(self, X):
        """X (n, 96, 96, 3), 0-255 -> (n,) integers 0-7: the class whose mean colour is nearest."""
        colours = np.stack([image.mean(axis=(0, 1)) for image in X]) if len(X) else np.empty((0, 3))
        return ((colours[:, None] - self.means) ** 2).sum(axis=2).argmin(axis=1)
