"""Models of one node for ONNX Runtime."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from .cases import Case
from .formulas import Array

OPSET = 17  # the first with everything below is 13; the newest ones are unknown to older runtimes


class Node(NamedTuple):
    """An operator of ONNX and its attributes.
    `axis` is the name of the attribute that is a case's axis.
    """

    operator: str
    axis: str = ""
    several_axes: bool = False
    attributes: tuple[tuple[str, Any], ...] = ()


NODES = {
    "softmax": Node("Softmax", "axis"),
    "log_softmax": Node("LogSoftmax", "axis"),
    "logsumexp": Node("ReduceLogSumExp", "axes", several_axes=True, attributes=(("keepdims", 0),)),
    "sigmoid": Node("Sigmoid"),
    "cross_entropy": Node("SoftmaxCrossEntropyLoss", attributes=(("reduction", "mean"),)),
}


def model(case: Case, inputs: dict[str, Array]) -> bytes:
    """A model that computes the case's operation; raises KeyError if there is no such operator."""
    helper = importlib.import_module("onnx").helper
    node = NODES[case.operation]
    attributes = dict(node.attributes)
    if node.axis:
        attributes[node.axis] = [case.axis] if node.several_axes else case.axis
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    scores = inputs["x"]
    result = helper.make_tensor_value_info(
        "y", helper.np_dtype_to_tensor_dtype(scores.dtype), result_shape(case)
    )
    nodes = [helper.make_node(node.operator, list(inputs), ["y"], **attributes)]
    opsets = [helper.make_opsetid("", OPSET)]
    graph = helper.make_graph(nodes, case.operation, values, [result])
    made = helper.make_model(
        graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)
    )
    return bytes(made.SerializeToString())


def result_shape(case: Case) -> tuple[int, ...]:
    if case.operation == "cross_entropy":
        return ()
    if case.operation == "logsumexp" and case.axis is not None:
        axis = case.axis % len(case.shape)
        return case.shape[:axis] + case.shape[axis + 1 :]
    return case.shape


def session(runtime: Any, case: Case, inputs: dict[str, Array]) -> Any:
    """A session with one thread that runs the model."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(
        model(case, inputs), options, providers=["CPUExecutionProvider"]
    )


def bound(session: Any, inputs: dict[str, Array], out: Array) -> Any:
    """A binding that reads the arrays where they are and writes to `out`."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)
    return binding
