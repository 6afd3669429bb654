"""Stands in for the package datasets, where nothing can be downloaded: the digits of scikit-learn, 28 by 28."""

import numpy as np
from sklearn.datasets import load_digits


def load_dataset(name):
    digits = load_digits()
    images = np.pad(np.kron(digits.images, np.ones((1, 3, 3))), [(0, 0), (2, 2), (2, 2)]).astype(np.uint8)
    split = {"train": slice(0, 1500), "test": slice(1500, None)}
    return {part: {"image": images[where], "label": digits.target[where]} for part, where in split.items()}
