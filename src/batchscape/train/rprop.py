"""Resilient backpropagation, which Keras lacks: steps that follow the sign of the gradient and ignore its size."""

from typing import Any

import keras
from keras import ops

from batchscape.backend import keras_private
from batchscape.errors import InvalidInput


@keras.saving.register_keras_serializable(package="batchscape")
class Rprop(keras.optimizers.Optimizer):
    """iRprop−: every weight has a step of its own, which grows while its gradient keeps its sign and shrinks when it flips.

    With s_t the sign of the gradient of one weight w, and Δ_t its step,

        Δ_t = min(η⁺·Δ_{t−1}, Δ_max)  if s_t·s_{t−1} > 0
        Δ_t = max(η⁻·Δ_{t−1}, Δ_min)  if s_t·s_{t−1} < 0, and s_t = 0 from there on
        Δ_t = Δ_{t−1}                 otherwise
        w  ← w − Δ_t·s_t

    The rule needs gradients whose signs mean something: the whole training set, or large batches. The size of the gradient
    is never used, so clipping by norm or scaling of the loss changes nothing, and none is too small to count (the product
    of two tiny float32 gradients is 0, that of their signs is not).

    Args:
        learning_rate: Initial step Δ₀ of every weight, > 0, in the unit of a weight. It is read at the first update only;
            a schedule is therefore refused, and setting it later changes nothing but weight decay.
        etas: Factors (η⁻, η⁺) with 0 < η⁻ < 1 < η⁺.
        step_sizes: Bounds (Δ_min, Δ_max) of the steps with 0 < Δ_min ≤ Δ_max.
        weight_decay: Decoupled weight decay of Keras: w ← w − weight_decay·learning_rate·w before each update.
        name: Name of the optimizer.
        **kwargs: See `keras.optimizers.Optimizer`.

    Raises:
        InvalidInput: If a value is not admissible.

    Example:
        >>> w = keras.Variable([1.0, 1.0])
        >>> Rprop(0.1).apply([ops.convert_to_tensor([1e-9, -1e9])], [w])
        >>> [f"{value:.6f}" for value in w.numpy()]
        ['0.900000', '1.100000']

    References:
        Igel & Hüsken (2000), Improving the Rprop learning algorithm, algorithm 4 (iRprop−).
        Riedmiller & Braun (1993), A direct adaptive method for faster backpropagation learning: the RPROP algorithm.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        weight_decay: float | None = None,
        name: str = "rprop",
        **kwargs: Any,
    ):
        if callable(learning_rate):
            raise InvalidInput(
                "Rprop reads its learning_rate, the initial step, once; a schedule would do nothing. "
                f"Received: learning_rate={learning_rate!r}"
            )
        if not (learning_rate > 0 and 0 < etas[0] < 1 < etas[1] and 0 < step_sizes[0] <= step_sizes[1]):
            raise InvalidInput(
                "Rprop needs learning_rate > 0, etas with 0 < η⁻ < 1 < η⁺ and step_sizes with 0 < Δ_min ≤ Δ_max. "
                f"Received: learning_rate={learning_rate}, etas={tuple(etas)}, step_sizes={tuple(step_sizes)}"
            )
        super().__init__(float(learning_rate), weight_decay=weight_decay, name=name, **kwargs)
        self.etas = tuple(map(float, etas))
        self.step_sizes = tuple(map(float, step_sizes))

    def build(self, variables) -> None:
        """Make the slots: the last sign and the step of each weight; a step of 0 has not been set yet."""
        if not self.built:
            super().build(variables)
            self._signs, self._steps = self.add_optimizer_variables(variables, ["sign", "step"])

    def update_step(self, gradient, variable, learning_rate) -> None:
        """Update one variable by its gradient."""
        index, dtype = keras_private.index_of(self, variable), variable.dtype
        signs, steps = (ops.convert_to_tensor(slots[index]) for slots in (self._signs, self._steps))
        # Adding it to zeros makes the sparse gradient of an embedding dense: a row not met keeps its step.
        sign = ops.sign(ops.add(ops.zeros_like(steps), ops.cast(gradient, dtype)))
        agreement = ops.multiply(sign, signs)
        shrink, grow = self.etas
        one = ops.ones_like(steps)
        factor = ops.where(agreement > 0, grow * one, ops.where(agreement < 0, shrink * one, one))
        started = ops.where(steps > 0, steps, ops.cast(learning_rate, dtype) * one)
        step = ops.clip(ops.multiply(started, factor), *self.step_sizes)
        sign = ops.where(agreement < 0, ops.zeros_like(sign), sign)
        self.assign(self._signs[index], sign)
        self.assign(self._steps[index], step)
        self.assign_sub(variable, ops.multiply(step, sign))

    def get_config(self) -> dict[str, Any]:
        """What makes an equal optimizer."""
        return {**super().get_config(), "etas": self.etas, "step_sizes": self.step_sizes}
