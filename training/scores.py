"""Accuracy, cross-entropy, and temperature scaling."""

import numpy as np
from scipy.optimize import minimize_scalar


def score(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, and cross-entropy in nats, of probabilities (n, 8) for labels (n,)."""
    likelihood = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1)
    accuracy = float(np.mean(probabilities.argmax(axis=1) == labels))
    return {"accuracy": round(accuracy, 5), "loss": round(float(-np.log(likelihood).mean()), 5)}


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T in [0.1, 10] that minimises the negative log-likelihood of labels (n,): Guo et al. 2017, 4.2.
    probabilities: (n, 8) at T = 1; at T they are p^(1/T), normalised."""
    logits = np.log(np.clip(probabilities, 1e-30, None).astype(np.float64))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))

    found = minimize_scalar(loss, bounds=np.log([0.1, 10]), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))
