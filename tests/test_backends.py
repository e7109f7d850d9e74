"""Both backends find the same: from one start and in one order, training and every measurement agree."""

import numpy as np
import pytest

from tests import backends
from tests.conftest import ON_JAX
from tests.toys import ENGINES


def long_on_tensorflow(net):
    """A net as a parameter: what TensorFlow found once is found there again every day for one of them."""
    return pytest.param(net, marks=[] if ON_JAX or net == "mlp" else pytest.mark.long)


@pytest.fixture(scope="module")
def stored():
    with np.load(backends.FIXTURE) as file:
        return {name: file[name] for name in file.files}


def differences(found, stored, prefix):
    return {name: backends.difference(value, stored[f"{prefix}/{name}"]) for name, value in found.items()}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("net", list(map(long_on_tensorflow, backends.NETS)))
def test_training_agrees_with_that_on_tensorflow(stored, net, engine):
    found = differences(backends.trained(net, engine), stored, f"{net}/trained")
    print(f"{net}, {engine}: {max(found.values()):.1e}")
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("net", list(map(long_on_tensorflow, backends.measured_nets())))
def test_measurements_agree_with_those_on_tensorflow(stored, net):
    found = differences(backends.measured(net), stored, net)
    print(net, {name: f"{value:.1e}" for name, value in found.items()})
    of_hessian = {name for name in found if "hessian" in name}
    assert max(found[name] for name in of_hessian) < 1e-4, found
    assert max(found[name] for name in set(found) - of_hessian) < 1e-5, found
