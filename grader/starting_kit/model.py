"""The smallest submission that works: labels a cell by its mean colour, with numpy alone.

Zip the files, not their folder (zip submission.zip model.py weights.npy), and upload; then put your own network into
`__init__` and `predict`. With Keras: build it in code, load `.weights.h5` from FOLDER, return the argmax as int.
Most failed uploads are due to three mistakes; the lines that avoid them are numbered.
"""

import os

import numpy as np

FOLDER = os.path.dirname(os.path.abspath(__file__))  # 1. no relative paths: the working directory may differ


class Model:
    def __init__(self):
        self.means = np.load(os.path.join(FOLDER, "weights.npy"))  # (8, 3): mean red, green and blue of each class

    def predict(self, X):
        """X (n, 96, 96, 3), 0-255 -> (n,) integers 0-7: the class whose mean colour is nearest."""
        colours = [image.mean(axis=(0, 1)) for image in X]  # 2. no statistics of all X: judge each image alone
        distances = ((np.reshape(colours, (-1, 1, 3)) - self.means) ** 2).sum(axis=2)
        return distances.argmin(axis=1)  # 3. one integer per image, no probabilities or one-hot rows
