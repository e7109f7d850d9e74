"""The same runs and measurements on every backend: same weights to start from, same order, same probes.

    python -m tests.backends        # on TensorFlow: stores what it finds as tests/fixtures/backends.npz
                                    # on JAX: stores how far from that it is, in figures/data/backends

`test_backends.py` compares what the backend at hand finds with what TensorFlow has found.
"""

import pathlib

import keras
import numpy as np
import pandas as pd

import batchscape as bs
from batchscape import backend
from tests.toys import ENGINES

RECORDS = pathlib.Path(__file__).parents[1] / "figures" / "data" / "backends"
FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "backends.npz"


def mlp():
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((64,)), dense(24, "tanh"), dense(16, "relu"), dense(10)], name="mlp")


def convnet():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(6, 3, use_bias=False),  # Beside BatchNorm its gradient is rounding, which Adam would blow up.
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10),
        ],
        name="convnet",
    )


def recurrent():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((64,)), layers.Reshape((8, 8)), layers.LayerNormalization(), layers.GRU(6), layers.Dense(10)],
        name="recurrent",
    )


NETS = {
    "mlp": (mlp, {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "learning_rate": 0.05}),
    "convnet": (convnet, {"optimizer": "adam", "learning_rate": 0.003}),
    "recurrent": (recurrent, {"optimizer": "rmsprop", "learning_rate": 0.002}),
    "scheduled": (
        mlp,
        {"optimizer": "sgd", "learning_rate": 0.2, "warmup": 1, "decay": "cosine", "decay_factor": 0.1},
    ),
}
"""Builders and how they are trained."""


def digits():
    """A tenth of the digits, so that 128 examples in batches of 28 leave a last one of 16."""
    data = bs.load_dataset("digits", train_size=128)
    return (data.x_train.reshape(-1, 64), data.y_train), (data.x_test[:60].reshape(-1, 64), data.y_test[:60])


def start(build) -> list[np.ndarray]:
    """Weights that depend on no backend's random numbers: He's, zero biases, and the moments that layers begin with."""
    rng = np.random.default_rng(7)
    weights = []
    for weight in build().get_weights():
        fan_in = int(np.prod(weight.shape[:-1]))
        drawn = rng.normal(size=weight.shape) * (2 / max(1, fan_in)) ** 0.5
        weights.append((drawn if weight.ndim > 1 else weight).astype(np.float32))
    return weights


def trained(net: str, engine: str) -> dict[str, np.ndarray]:
    """Weights after three epochs, and the curves on the way."""
    build, options = NETS[net]
    cell = bs.Cell(batch_size=28, epochs=3, engine=engine, seed=1, **options)
    record = bs.fit_one(cell, build=build, data=digits(), initial_weights=start(build))
    assert record.facts["engine"] == engine, record.facts["engine_note"]
    curves = {
        name: record.curves[name] for name in ("train_loss", "val_loss", "test_accuracy", "distance", "path_length")
    }
    return {
        **{f"w{i}": w for i, w in enumerate(record.weights["final"])},
        **{k: np.array(v) for k, v in curves.items()},
    }


def measured(net: str) -> dict[str, np.ndarray]:
    """What every room finds out about the weights that `start` gives."""
    build, _ = NETS[net]
    model, (x, y) = build(), digits()[0]
    f, weights = bs.Objective(model, x, y, batch_size=50), start(build)
    directions = np.random.default_rng(1).normal(size=(2, f.n_parameters)) / f.n_parameters**0.5
    other = f.unflatten(f.flatten(weights) + directions[0], weights)
    line = bs.interpolate(f, weights, other, np.linspace(-0.5, 1.5, 5))
    plane = bs.evaluate_plane(f, weights, directions, [-1, 0, 1], [0, 0.5], show_progress=False)
    moments = bs.Objective(model, x, y, batch_norm="reestimate", moments_from=(2, 40))
    eigenvalues = bs.hessian_eigenvalues(f, weights, k=3, tolerance=1e-4)
    trace, noise = bs.hessian_trace(f, weights, n_probes=8), bs.gradient_noise_scale(f, weights, small=8, big=64)
    return {
        "loss": np.array(f(weights)),
        "accuracy": np.array(f.evaluate(weights)["accuracy"]),
        "gradient": f.gradient(weights),
        "line": line.loss,
        "plane": plane.loss,
        "loss_of_moments": np.array(moments(weights)),
        "batch_gradients": f.batch_gradients(weights, np.arange(20).reshape(4, 5)),
        "example_norms": f.example_gradient_sums(weights)[1],
        "noise_scale": np.array([noise.simple, noise.trace_cov, noise.grad_sq_norm]),
        "rho_sharpness": np.array(bs.rho_sharpness(f, weights).value),
        "hessian_products": f.hessian_products(weights, directions),
        "hessian_eigenvalues": eigenvalues.values,
        "hessian_trace": np.array([trace.mean, trace.stderr]),
    }


def measured_nets() -> list[str]:
    """The nets that `measured` looks at; a schedule makes no other net."""
    return [net for net in NETS if net != "scheduled"]


def difference(value: np.ndarray, stored: np.ndarray) -> float:
    """The largest difference of a quantity, relative to its largest value."""
    return float(np.max(np.abs(value - stored)) / np.max(np.abs(stored)))


def agreement() -> pd.DataFrame:
    """How far from what TensorFlow has found every quantity of every net is."""
    with np.load(FIXTURE) as stored:
        found = [(net, engine, trained(net, engine), f"{net}/trained") for net in NETS for engine in ENGINES]
        found += [(net, "", measured(net), net) for net in measured_nets()]
        rows = [
            {
                "net": net,
                "engine": engine,
                "quantity": name,
                "difference": difference(value, stored[f"{prefix}/{name}"]),
            }
            for net, engine, values, prefix in found
            for name, value in values.items()
        ]
    return pd.DataFrame(rows).assign(backend=backend.name())


if __name__ == "__main__":
    if backend.name() == "tensorflow":
        runs = {f"{net}/trained/{name}": value for net in NETS for name, value in trained(net, "stock").items()}
        points = {f"{net}/{name}": value for net in measured_nets() for name, value in measured(net).items()}
        np.savez_compressed(FIXTURE, **runs, **points)
    else:
        RECORDS.mkdir(parents=True, exist_ok=True)
        agreement().to_csv(RECORDS / f"agreement_{backend.name()}.csv", index=False, float_format="%.2g")
