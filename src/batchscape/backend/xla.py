"""Where XLA pays.

On a CPU a fused loop of matrix products runs up to 15 times faster under XLA, while its convolutions run at 5 to 10
GFLOP/s, up to 60 times slower than oneDNN's (tensorflow#62808); but they need no dispatch, which costs a plain update
0.2 to 0.6 ms. So XLA pays for convolutions as long as an update is small (`benchmarks/convolution.py`). A rule on the
graph decides and not a stopwatch, so that a run is compiled the same way every time; each record stores the choice.
`BATCHSCAPE_XLA=0` in the environment switches XLA off: compiling takes seconds, which short trainings do not earn back.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable

import keras
import tensorflow as tf

from batchscape.system import cores

MOST_FLOPS_PER_THREAD = 1.5e6
"""XLA pays up to this many floating point operations in the convolutions of an update, for each thread."""

BACKWARD = 2
"""Operations of a backward pass, in forward passes."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What a model computes, as far as the choice is concerned.

    Attributes:
        convolution_flops: Operations in the convolutions of a forward pass of one example; infinite where unknown.
        calls_python: Whether it calls back into Python, which XLA cannot.
        looks_up: Whether it looks things up in tables, as layers for words do, which XLA cannot.
    """

    convolution_flops: float
    calls_python: bool
    looks_up: bool = False

    def suits_xla(self, batch_size: int) -> bool:
        """Whether updates, or passes, of `batch_size` examples should be compiled by XLA."""
        if self.calls_python or self.looks_up or os.environ.get("BATCHSCAPE_XLA") == "0":
            return False
        if not self.convolution_flops or tf.config.list_logical_devices("GPU"):
            return True
        threads = tf.config.threading.get_intra_op_parallelism_threads() or cores.threads()
        return (1 + BACKWARD) * self.convolution_flops * batch_size <= MOST_FLOPS_PER_THREAD * threads


def rule(model: keras.Model, x) -> Callable[[int], bool]:
    """`Work.suits_xla` of a model; where XLA is switched off, or inputs are strings, its graph need not be looked at."""
    strings = any(tf.as_dtype(array.dtype) == tf.string for array in keras.tree.flatten(x))
    if strings or os.environ.get("BATCHSCAPE_XLA") == "0":
        return lambda batch_size: False
    return work_of(model, x).suits_xla


def work_of(model: keras.Model, x) -> Work:
    """Read off the graph of a model what it computes.

    Args:
        model: A built Keras model.
        x: Inputs, shape (n, ...) or a tree of such arrays; only their shapes and types count.
    """
    spec = keras.tree.map_structure(lambda array: tf.TensorSpec((1, *array.shape[1:]), array.dtype), x)
    graph = tf.function(functools.partial(model, training=True), autograph=False).get_concrete_function(spec).graph
    outside = graph.get_operations()
    inside = _in_loops(graph)
    types = inside | {operation.type for operation in outside}
    flops = sum(_convolution_flops(operation) for operation in outside)
    return Work(
        convolution_flops=math.inf if any("Conv" in name for name in inside) else flops,
        calls_python=any("PyFunc" in name for name in types),
        looks_up=any("LookupTable" in name for name in types),
    )


ROUGH = ("MaxPoolGradGrad", "MaxPool3DGradGrad")
"""Operations that XLA computes in bfloat16, whatever their type: Hessian-vector products would be off by some percent."""


def program(function: Callable, *, jit: bool) -> Callable:
    """Compile a function of tensors, afresh for each shape that comes along.

    Concrete functions, since TensorFlow warns of traces it takes for a mistake. Where XLA lacks an operation, fails on it
    (tables of lookups: InternalError, "RET_CHECK failure"), or computes it roughly (the second derivative of max pooling),
    we go without it.

    Args:
        function: What to compile; it takes and returns tensors, or trees of them.
        jit: Whether XLA compiles.
    """
    programs: dict[tuple, Callable] = {}

    def call(*arguments):
        shapes = tuple(tuple(argument.shape) for argument in tf.nest.flatten(arguments))
        if shapes in programs:
            return programs[shapes](*arguments)
        for with_xla in [True, False] if jit else [False]:
            traced = tf.function(function, jit_compile=with_xla, autograph=False)
            concrete = traced.get_concrete_function(*arguments)
            if with_xla and any(name.startswith(ROUGH) for name in types_in(concrete.graph)):
                continue
            try:
                result = concrete(*arguments)
            except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.InternalError):
                if not with_xla:
                    raise
            else:
                programs[shapes] = concrete
                return result

    return call


def types_in(graph) -> set[str]:
    """Types of all operations of a graph, those in the bodies of its loops among them."""
    return {operation.type for operation in graph.get_operations()} | _in_loops(graph)


def _in_loops(graph) -> set[str]:
    """Types of the operations in the bodies of a graph's loops, which are functions of their own."""
    return {node.op for body in graph.as_graph_def().library.function for node in body.node_def}


def _convolution_flops(operation) -> float:
    """2 × outputs × kernel size, which for a depthwise convolution is without its channels; 0 for anything else."""
    if "Conv" not in operation.type:
        return 0.0
    output = operation.outputs[0].shape
    kernels = [tensor.shape for tensor in list(operation.inputs)[1:] if tensor.shape.rank == output.rank]
    if not kernels or not all(shape.is_fully_defined() for shape in (output, kernels[0])):
        return math.inf
    per_output = kernels[0][:-2] if "Depthwise" in operation.type else kernels[0][:-1]
    return 2.0 * output.num_elements() * math.prod(per_output)
