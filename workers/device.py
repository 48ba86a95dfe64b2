"""Where a trial computes: its device, and how a network, its images and too large a batch get along there."""

from __future__ import annotations

import copy
import math
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, fx

from workers.spec import JobSpec, Resources

CPU = torch.device("cpu")

T = TypeVar("T")


def prepare(resources: Resources) -> None:
    """Sets this process up for trials with these resources, once.

    On a GPU float32 is float32, and of several algorithms the same one is taken each time, so that scores compare with those of
    another process.
    """
    torch.set_num_threads(resources.cpus)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


def device_of(resources: Resources) -> torch.device:
    """The GPU that Ray gave this process if trials have one, and the CPU where none is, as with a job's own process."""
    return torch.device("cuda", 0) if resources.gpus and torch.cuda.is_available() else CPU


def missing(resources: Resources) -> str | None:
    """What to say of a worker that has no GPU although trials want one; ``None`` if nothing is wrong."""
    if not resources.gpus or torch.cuda.is_available():
        return None
    return (
        f"resources.gpus is {resources.gpus:g}, but torch {torch.__version__} finds no GPU on this worker; install a build for "
        "its GPU there, or leave resources.gpus out."
    )


def has_bfloat16(device: torch.device) -> bool:
    """Whether it has instructions for bfloat16; without them that takes six to eight times as long as float32."""
    if device != CPU:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's


def unrounded(spec: JobSpec) -> str | None:
    """What to say of this machine if it computes in float32 although bfloat16 is wanted."""
    wanted = "bfloat16" in (spec.resources.precision, spec.recovery.recipe.precision)
    if not wanted or has_bfloat16(device_of(spec.resources)):
        return None
    return (
        f"Precision bfloat16 is wanted, and {socket.gethostname()} has no instructions for it and would take several times as "
        "long: what it computes is in float32."
    )


def rounded(call: Callable[..., T], device: torch.device, precision: str) -> Callable[..., T]:
    """The same, in bfloat16 if that is wanted and the device has it: products, and what else is safe so; not norms and sums."""
    if precision == "float32" or not has_bfloat16(device):
        return call
    run: Callable[..., T] = torch.autocast(device.type, torch.bfloat16)(call)
    return run


def moved(module: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """The same network, itself moved; tensors that it makes of nothing are made there too."""
    changed = False
    for node in module.graph.nodes:
        if node.op == "call_function" and _makes(node.target) and (node.kwargs.get("device") or CPU) != device:
            node.kwargs = {**node.kwargs, "device": device}
            changed = True
    if changed:
        module.recompile()
    return module.to(device)


def copied(module: fx.GraphModule, resources: Resources) -> fx.GraphModule:
    """The network on the device that trials with these resources have: on a CPU itself, otherwise a copy.

    From then on this process gets no more than its share of the device's memory.
    """
    device = device_of(resources)
    if device == CPU:
        return module
    torch.cuda.set_per_process_memory_fraction(resources.gpus, device)
    return moved(copy.deepcopy(module), device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device, without waiting until it is there."""
    return tensor if device == CPU else tensor.pin_memory().to(device, non_blocking=True)


def pieces(tensor: Tensor, most: int) -> Sequence[Tensor]:
    """A batch in parts of at most so many rows, about equal: BatchNorm, while it learns, takes no single image."""
    return tensor.tensor_split(math.ceil(len(tensor) / most))


class Images:
    """Batches on a device: all of them kept there, or sent one ahead of the work where they would take too much of it.

    Args:
        batches: in main memory.
        device: where they are wanted.
        limit: bytes that they may take there.

    Attributes:
        largest: how many images a batch has at most.
    """

    def __init__(self, batches: Sequence[Tensor], device: torch.device, limit: float) -> None:
        self.largest = max((len(batch) for batch in batches), default=0)
        self._device = device
        self._resident = device == CPU or sum(batch.nbytes for batch in batches) <= limit
        self._batches = [batch if device == CPU else batch.pin_memory() for batch in batches]
        if self._resident:
            self._batches = [batch.to(device) for batch in self._batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        if self._resident:
            yield from self._batches
            return
        stream, ahead = torch.cuda.Stream(self._device), deque[tuple[Tensor, torch.cuda.Event]]()
        for batch in self._batches:
            with torch.cuda.stream(stream):
                ahead.append((batch.to(self._device, non_blocking=True), stream.record_event()))
            if len(ahead) > 1:
                yield self._arrived(*ahead.popleft())
        while ahead:
            yield self._arrived(*ahead.popleft())

    def _arrived(self, batch: Tensor, copied: torch.cuda.Event) -> Tensor:
        working = torch.cuda.current_stream(self._device)
        working.wait_event(copied)
        batch.record_stream(working)  # its memory is not given away while that still reads it
        return batch


def room(device: torch.device, resources: Resources) -> float:
    """Bytes of a trial's share of its device that images may take: half, the rest is for what networks make of them."""
    if device == CPU:
        return float("inf")
    free, total = torch.cuda.mem_get_info(device)
    return min(free, resources.gpus * total) / 2


class Fitting:
    """Does work on fewer images at a time once the device's memory did not suffice, and from then on."""

    def __init__(self) -> None:
        self.most: int | None = None

    def __call__(self, work: Callable[[int], T], images: int) -> T:
        """What ``work`` returns for the most images at a time that fit.

        Args:
            work: is given that number; where memory does not suffice it is done all over with half of it.
            images: those in its largest batch.

        Raises:
            torch.OutOfMemoryError: a single image does not fit.
        """
        while True:
            most = images if self.most is None else min(images, self.most)
            try:
                return work(most)
            except torch.OutOfMemoryError:
                if most == 1:
                    raise
            self.most = (most + 1) // 2
            torch.cuda.empty_cache()


def _makes(operator: object) -> bool:
    schema = getattr(operator, "_schema", None)
    return schema is not None and any(argument.name == "device" for argument in schema.arguments)
