"""Norms of per-example gradients by `torch.func.vmap(grad)`, timed on request; runs in an environment of its own.

Reads one JSON object a line, `{"file": npz with x, y and the Keras weights w0, w1, ..., "model": name}`, and answers with
the seconds that the norms of all examples took, and the norms.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

BLOCKS = (50, 100, 250)


class ChannelsLast(nn.Module):
    """The order in which Keras flattens images."""

    def forward(self, x):
        return x.movedim(-3, -1).flatten(-3)


def build(model: str) -> nn.Module:
    """The same networks as ours, on MNIST."""
    if model == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
        )
    conv = [nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2)]
    return nn.Sequential(*conv, ChannelsLast(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10))


def from_keras(net: nn.Module, arrays) -> dict[str, torch.Tensor]:
    """The weights of the Keras model, in PyTorch's layouts."""
    weights = [torch.from_numpy(arrays[f"w{i}"].copy()) for i in range(len(list(net.parameters())))]
    turn = {4: lambda kernel: kernel.permute(3, 2, 0, 1), 2: lambda kernel: kernel.T, 1: lambda bias: bias}
    turned = [turn[weight.ndim](weight).contiguous() for weight in weights]
    return {name: weight for (name, _), weight in zip(net.named_parameters(), turned, strict=True)}


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    loaded = None
    for line in sys.stdin:
        task = json.loads(line)
        if loaded is None:
            arrays = np.load(task["file"])
            net = build(task["model"])
            weights = from_keras(net, arrays)
            x = torch.from_numpy(np.moveaxis(arrays["x"], -1, 1).copy())
            y = torch.from_numpy(arrays["y"].astype(np.int64))

            def loss(weights, image, target, net=net):
                logits = functional_call(net, weights, (image[None],))
                return nn.functional.cross_entropy(logits, target[None])

            gradients = vmap(grad(loss), in_dims=(None, 0, 0))

            def norms(images, targets, weights=weights, gradients=gradients):
                found = gradients(weights, images, targets)
                return torch.sqrt(sum(part.flatten(1).square().sum(1) for part in found.values()))

            quickest = {}
            for size in BLOCKS:
                norms(x[:size], y[:size])
                begin = time.perf_counter()
                for first in range(0, 1000, size):
                    norms(x[first : first + size], y[first : first + size])
                quickest[time.perf_counter() - begin] = size
            loaded = quickest[min(quickest)]
        begin = time.perf_counter()
        parts = [norms(*pair) for pair in zip(x.split(loaded), y.split(loaded), strict=True)]
        seconds = time.perf_counter() - begin
        print(json.dumps({"seconds": seconds, "norms": torch.cat(parts).tolist()}), flush=True)


main()
