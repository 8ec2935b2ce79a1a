"""Reads a handwritten digit by a small convolutional network."""

import numpy as np
import torch
from PIL import Image
from torch import nn


def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


class Digits:
    """One instance is made at load. It reads the weights that train.py has written."""

    def __init__(self, context):
        self.network = network()
        weights = torch.load(context.source_dir / "weights.pt", weights_only=True)
        self.network.load_state_dict(weights)

    @torch.inference_mode()
    def predict(self, picture: Image.Image):
        """The picture is decoded, as the annotation asks."""
        points = np.asarray(picture.convert("L").resize((8, 8)), dtype=np.float32) / 255
        scores = self.network(torch.from_numpy(points)[None, None])[0]
        return {"digit": scores.argmax(), "probabilities": scores.softmax(0)}
