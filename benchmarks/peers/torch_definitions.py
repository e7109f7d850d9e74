"""Whether an attribute of a PyTorch model sets the batch; prints the counts as JSON."""

import json

import torch
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    model = torch.nn.Linear(4, 1)
    model.batch_size = 16
    data = TensorDataset(torch.zeros(320, 4))
    rows = []
    for options, found in (({}, "without batch_size"), ({"batch_size": 32}, "of batch_size=32")):
        batches = sum(1 for (x,) in DataLoader(data, **options) if model(x).shape[0])
        asked = f"PyTorch: batches of a DataLoader {found} over 320 examples after model.batch_size = 16"
        rows.append({"id": "C11", "asked": asked, "said": 20, "found": batches})
    print(json.dumps({"torch": torch.__version__, "rows": rows}))


main()
