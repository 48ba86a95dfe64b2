"""A network as a chain of parts, of which each hands a single tensor to the next.

Networks that differ behind some layer alone have equal parts before it, and what one of them computed there serves the others.
In a residual network a part ends where a block does; within it two values are alive.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import fx
from torch.nn.modules.batchnorm import _BatchNorm

from pruners.graph import ops


def chain(module: fx.GraphModule) -> list[fx.GraphModule]:
    """The network's parts in order, as short as they get with a layer in each; their modules are the network's own.

    No part ends between a layer and the BatchNorm that reads it, nor between two calls of one module.
    """
    ends = _ends(module)
    parts: list[fx.GraphModule] = []
    graph, values = fx.Graph(), dict[fx.Node, fx.Node]()

    def copied(node: fx.Node) -> fx.Node:
        if node not in values:  # a constant, read in several parts
            values[node] = graph.node_copy(node)
        return values[node]

    for node in module.graph.nodes:
        values[node] = graph.node_copy(node, copied)
        if node in ends:
            graph.output(values[node])
            parts.append(fx.GraphModule(module, graph))
            graph = fx.Graph()
            values = {node: graph.placeholder("value")}
    return [*parts, fx.GraphModule(module, graph)]


def fingerprints(parts: list[fx.GraphModule]) -> list[bytes]:
    """For each part, what stands for it and all before it: equal weights, buffers and sizes have equal ones.

    Settings of modules that no removal of channels changes (strides, momenta) are taken as equal.
    """
    digest, found = blake2b(digest_size=16), []
    for part in parts:
        digest.update(part.code.encode())
        for tensor in part.state_dict().values():
            digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        found.append(digest.digest())
    return found


def mutates(module: fx.GraphModule) -> bool:
    """Whether the network writes into some of its values, which may be its input, or that of a part."""
    functions = [node.target for node in module.graph.nodes if node.op == "call_function"]
    written = any(getattr(getattr(function, "_schema", None), "is_mutable", False) for function in functions)
    return written or any(getattr(part, "inplace", False) for part in module.modules())


def _ends(module: fx.GraphModule) -> set[fx.Node]:
    """The nodes behind which the chain may be parted, no two without a layer between them."""
    nodes = list(module.graph.nodes)
    last: dict[object, int] = {}
    for place, node in enumerate(nodes):
        for needed in (*node.all_input_nodes, *_called(node)):
            last[needed] = place
    alive, ends, layers = set[object](), set[fx.Node](), 0
    for place, node in enumerate(nodes):
        alive |= {node, *_called(node)} if node.op != "get_attr" else set()
        alive = {value for value in alive if last.get(value, -1) > place}
        layers += node.op == "call_module" and any(True for _ in module.get_submodule(str(node.target)).parameters())
        if alive == {node} and layers and not any(_opens(module, user) for user in node.users):
            ends.add(node)
            layers = 0
    return ends


def _called(node: fx.Node) -> tuple[object, ...]:
    return (str(node.target),) if node.op == "call_module" else ()


def _opens(module: fx.GraphModule, user: fx.Node) -> bool:
    """Whether a node cannot begin a part: it belongs to the layer before, takes one of several values out, or ends it all."""
    if user.op == "call_module":
        return isinstance(module.get_submodule(str(user.target)), _BatchNorm)
    return user.op == "output" or user.target is ops.ITEM
