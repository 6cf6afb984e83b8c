"""Parts of history encoders in NumPy, and every place of a history as a row of its own."""

import math

import numpy as np
import torch


def arrays(module):
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * np.vectorize(lambda value: (1 + math.erf(value / math.sqrt(2))) / 2)(x)


def norm(x, p, name):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"]
        + p[f"{name}.bias"]
    )


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attend(query, x, p, block, num_heads):
    """What each place reads of itself and earlier ones: ``(length, dim)`` in and out."""
    q = linear(query, p, f"{block}.query")
    k, v = np.split(linear(x, p, f"{block}.key_value"), 2, axis=1)
    bias = p.get(f"{block}.distance", np.zeros((num_heads, len(x))))
    mixed, width = np.zeros_like(x), x.shape[1] // num_heads
    for place in range(len(x)):
        for head in range(num_heads):
            columns = slice(head * width, (head + 1) * width)
            logit = k[: place + 1, columns] @ q[place, columns] / np.sqrt(width)
            score = np.exp(logit + bias[head, : place + 1][::-1])
            mixed[place, columns] = (score / score.sum()) @ v[: place + 1, columns]
    return linear(mixed, p, f"{block}.output")


def shaken(encoder):
    """The encoder in float64 with random values for parameters that start at 0 or 1."""
    with torch.no_grad():
        for parameter in encoder.double().eval().parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def row_by_row(encoder, index, weight):
    """The vector of each place, from a row with the items up to it."""
    length = index.shape[1]
    rows = [
        torch.nn.functional.pad(index[:, : place + 1], (length - place - 1, 0))
        for place in range(length)
    ]
    return torch.stack([encoder(row, weight) for row in rows], 1)  # (batch, length, dim)
