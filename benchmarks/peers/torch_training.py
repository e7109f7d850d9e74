"""A plain PyTorch training loop over a DataLoader, timed on request; runs in an environment of its own.

Reads one JSON object a line, `{"x": file, "y": file, "model": name, "batch_size": B, "updates": n}`, and answers with
the seconds that those updates took.
"""

import itertools
import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(model: str, shape: tuple[int, ...]) -> nn.Module:
    """The same networks as ours."""
    if model == "mlp":
        inputs = int(np.prod(shape))
        stack = [nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)]
        return nn.Sequential(*stack)
    conv = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*conv, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * (shape[0] // 4) * (shape[1] // 4), 10))


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    loaded: dict = {}
    for line in sys.stdin:
        task = json.loads(line)
        key = task["model"], task["batch_size"]
        if key not in loaded:
            x, y = np.load(task["x"]), np.load(task["y"])
            net = build(task["model"], x.shape[1:])
            x = np.moveaxis(x, -1, 1).copy()  # PyTorch wants channels first.
            data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)))
            loaded[key] = net, DataLoader(data, batch_size=task["batch_size"], shuffle=False)
        net, loader = loaded[key]
        optimizer, loss = torch.optim.SGD(net.parameters(), lr=0.01), nn.CrossEntropyLoss()
        begin = time.perf_counter()
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))
        for inputs, targets in itertools.islice(epochs, task["updates"]):
            optimizer.zero_grad()
            loss(net(inputs), targets).backward()
            optimizer.step()
        print(json.dumps(time.perf_counter() - begin), flush=True)


main()
