"""How channels pass through modules: convolutions and linear layers consume them and hand out fresh ones."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from pruners.graph.assemble import Product
from pruners.graph.labels import FIXED, line_along, profile, varying
from pruners.graph.tracer import Tracer, as_labels, fixed, lay

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def module(tracer: Tracer, node: fx.Node) -> Tensor:
    """The labels that come out of a module call. Dropout leaves every channel where it is."""
    path = str(node.target)
    part = tracer.parts[path]
    source: Tensor = as_labels(tracer.args(node)[0])
    if isinstance(part, BatchNorm):
        return _batch_norm(tracer, node, path, part, source)
    if isinstance(part, nn.Linear | Convolution | Transposed):
        return _contraction(tracer, node, path, part, source)
    return source


def _batch_norm(tracer: Tracer, node: fx.Node, path: str, part: BatchNorm, source: Tensor) -> Tensor:
    line = profile(source, 1)
    if line is None:
        tracer.freeze(source, f"passes through {path} with its channels in several dims")
        whole: Tensor = fixed(tracer.shape(node))
        return whole
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(part, name) is not None:
            tracer.member(f"{path}.{name}", 0, line, output=True)
    return source


def _contraction(
    tracer: Tracer, node: fx.Node, path: str, part: nn.Linear | Convolution | Transposed, source: Tensor
) -> Tensor:
    shape: torch.Size = tracer.shape(node)
    dim = source.dim() - 1 if isinstance(part, nn.Linear) else source.dim() - (part.weight.dim() - 1)
    inputs = profile(source, dim)
    if inputs is None and isinstance(part, nn.Conv1d) and (slid := _slid_over(part, source, shape)) is not None:
        tracer.labels.norm(slid)
        tracer.result.products[node.name, 0] = Product(part.weight.shape[2] * tracer.elements(node), {2: slid})
        return source
    if inputs is None and isinstance(part, nn.Linear) and dim not in (along := varying(source)) and len(along) == 1:
        if node.name not in tracer.by_rows:
            return _passed_by(tracer, node, path, part, source, along[0])
        tracer.result.spread[node.name] = tracer.outputs(f"{path}.weight", 0, part.out_features)
    if inputs is None:
        tracer.freeze(source, f"enters {path} with its channels in several dims")
        inputs = torch.full((source.shape[dim],), FIXED)
    if isinstance(part, Transposed):
        outputs, out_dim = _transposed(tracer, path, part, inputs)
    elif isinstance(part, nn.Linear) or part.groups == 1:
        weight = f"{path}.weight"
        tracer.member(weight, 1, inputs)
        outputs, out_dim = tracer.outputs(weight, 0, part.weight.shape[0]), 0
    else:
        outputs, out_dim = _grouped(tracer, path, part, inputs), 0
    if out_dim == 0:
        tracer.member(f"{path}.weight", 0, outputs, output=True)
    if part.bias is not None:
        tracer.member(f"{path}.bias", 0, outputs, output=True)
    tracer.result.layers[path] = out_dim
    # A transposed convolution multiplies once per input pixel, all others once per output pixel.
    (argument,) = node.all_input_nodes
    counted, channels = (argument, source.shape[dim]) if isinstance(part, Transposed) else (node, shape[dim])
    pixels = tracer.elements(counted) // channels
    members = tracer.result.members
    axes = {place: members[f"{path}.weight", place] for place in (0, 1) if (f"{path}.weight", place) in members}
    tracer.result.products[node.name, 0] = Product(part.weight.numel() * pixels, axes)
    return lay(outputs, dim, shape)


def _passed_by(tracer: Tracer, node: fx.Node, path: str, part: nn.Linear, source: Tensor, dim: int) -> Tensor:
    """A linear layer over positions, as in MLP-Mixer: channels, along another dim, pass it by.

    What it puts out are channels too; a tracing by rows follows those instead.
    """
    channels = line_along(source, dim)
    tracer.result.spread[node.name] = channels
    for place, size in enumerate(part.weight.shape):
        tracer.member(f"{path}.weight", place, torch.full((size,), FIXED), output=place == 0)
    tracer.result.layers[path] = 0
    tracer.result.products[node.name, 0] = Product(tracer.elements(node) * part.in_features, {2 + dim: channels})
    return lay(channels, dim, tracer.shape(node))


def _slid_over(part: nn.Conv1d, source: Tensor, shape: torch.Size) -> Tensor | None:
    """The channels that a convolution mixes with their neighbours, as in ECA (Wang et al. 2020), or ``None`` if it is another.

    Without some of them others become neighbours, just as a norm over channels averages over those that are left.
    """
    same = source.shape == shape and part.in_channels == part.out_channels == 1
    return profile(source, 2) if same and source.dim() == 3 else None


def _grouped(tracer: Tracer, path: str, part: Convolution, inputs: Tensor) -> Tensor:
    """Grouped convolution: every group must lose equally, so channels at one place of all groups go together.

    Depthwise (one input channel per group) is the exception: a channel goes with its whole group.
    """
    weight = f"{path}.weight"
    per_group = part.weight.shape[0] // part.groups
    if part.weight.shape[1] == 1:
        tracer.bake(path, (), inputs, attribute="groups")
        return inputs.repeat_interleave(per_group)
    table = inputs.reshape(part.groups, -1)
    tracer.labels.unite(table, table[:1].expand(table.shape))
    tracer.member(weight, 1, table[0])
    return tracer.outputs(weight, 0, per_group).repeat(part.groups)


def _transposed(tracer: Tracer, path: str, part: Transposed, inputs: Tensor) -> tuple[Tensor, int]:
    """Transposed convolution: weight ``[in, out / groups, …]``; the labels that come out and the weight's dim that has them."""
    weight = f"{path}.weight"
    if part.groups == 1:
        tracer.member(weight, 0, inputs)
        outputs = tracer.outputs(weight, 1, part.weight.shape[1])
        tracer.member(weight, 1, outputs, output=True)
        return outputs, 1
    if part.groups == part.in_channels == part.out_channels:
        tracer.bake(path, (), inputs, attribute="groups")
        return inputs, 0
    tracer.freeze(inputs, f"enters {path}, a grouped transposed convolution, which is not followed")
    outputs = torch.full((part.out_channels,), FIXED)
    tracer.member(weight, 1, torch.full((part.weight.shape[1],), FIXED), output=True)
    return outputs, 1
