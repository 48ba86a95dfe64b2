"""Fine-tuning a pruned network: SGD with momentum and a cosine schedule, towards the dense network or the labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn import functional

from workers.data import Split, as_input

_BATCH = 64  # small enough for a few thousand images to give many steps
_LEARNING_RATE = 0.02  # a fifth of what these networks are trained with: the weights are good already
_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4  # He et al. 2016
_SOFT_SHARE = 0.9  # of the loss that follows the dense network's outputs; the labels keep the rest (Hinton et al. 2015)


def fine_tune(
    module: nn.Module,
    dense: fx.GraphModule,
    train: Split,
    *,
    epochs: int,
    distill: bool,
    seed: int,
    progress: Callable[[str], None],
) -> None:
    """Trains in place and leaves the network in eval mode.

    Args:
        module: the pruned network.
        dense: the network it came from, the teacher where ``distill`` is set.
        train: images to learn from.
        epochs: passes over them.
        distill: learn from the dense network's outputs, and a little from the labels; otherwise from the labels alone.
        seed: of the order of the images.
        progress: told one line after each epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(train) // _BATCH)
    optimizer = torch.optim.SGD(module.parameters(), _LEARNING_RATE, _MOMENTUM, weight_decay=_WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        module.train()
        order = torch.randperm(len(train), generator=generator).numpy()
        total = 0.0
        for start in range(0, len(train), _BATCH):
            chosen = order[start : start + _BATCH]
            if len(chosen) < 2:  # BatchNorm needs two values to take a variance of
                continue
            images, labels = as_input(train.x[chosen]), torch.tensor(train.y[chosen])
            outputs = module(images)
            loss = functional.cross_entropy(outputs, labels)
            if distill:
                with torch.no_grad():
                    target = functional.log_softmax(dense(images), 1)
                soft = functional.kl_div(functional.log_softmax(outputs, 1), target, reduction="batchmean", log_target=True)
                loss = _SOFT_SHARE * soft + (1 - _SOFT_SHARE) * loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        progress(f"Fine-tuning: epoch {epoch + 1} of {epochs}, loss {total / len(train):.4f}.")
    module.eval()
