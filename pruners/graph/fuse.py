"""A network for inference: BatchNorm, which only scales and shifts then, becomes part of the convolution before it."""

from __future__ import annotations

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def fused(module: fx.GraphModule) -> fx.GraphModule:
    """The same function of a network in eval mode, with BatchNorm in the weights of the convolution that it reads.

    Nothing of it is to be trained: other parts are the network's own. Transposed convolutions stay as they are, since
    groups order their output channels otherwise.
    """
    held: dict[str, nn.Module | Tensor] = {}
    graph, values = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in module.graph.nodes:
        pair = _pair(module, node)
        if pair is not None:  # the convolution before, which has been copied, takes the norm's place
            source = values[node.args[0]]
            source.target = f"fused {source.name}"  # no name of a user's module has a space
            held[str(source.target)] = nn.utils.fuse_conv_bn_eval(*pair)
            values[node] = source
            continue
        copy = values[node] = graph.node_copy(node, values.__getitem__)
        if node.op == "call_module":
            held[str(copy.target)] = module.get_submodule(str(node.target))
        elif node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            held[str(copy.target)] = getattr(module.get_submodule(path), name)
    return fx.GraphModule(held, graph)


def _pair(module: fx.GraphModule, node: fx.Node) -> tuple[_Convolution, _BatchNorm] | None:
    """The convolution and the BatchNorm to put into it, if this node is one that alone reads a convolution."""
    source = node.args[0] if node.args else None
    if node.op != "call_module" or not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
        return None
    conv, norm = (module.get_submodule(str(each.target)) for each in (source, node))
    if not isinstance(conv, _Convolution) or not isinstance(norm, _BatchNorm) or not norm.track_running_stats:
        return None
    return conv, norm
