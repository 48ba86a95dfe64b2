"""Deep deterministic policy gradient: an agent that learns from (state, action, reward, next state) to act in [0, 1].

Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016, arXiv 1509.02971, in the form and with the
defaults in which AMC uses it (He et al., arXiv 1802.03494).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import, and to list the searchers none is needed
    import torch

BATCH = 64
"""Transitions per update; AMC's default."""
_HIDDEN = 300  # units of both hidden layers of both networks
_RATE = 1e-3  # of Adam; AMC's critic. Its actor takes 1e-4 over 800 episodes, too slow for the 200 of a usual search
_LAST_LAYER = 0.05  # of the usual scale of weights: the first actions are all near 0.5, the first values near 0 (as in DDPG)
_TAU = 0.01  # share of the networks that the targets take over per update
_DISCOUNT = 1.0  # none: a reward is for the whole episode
_BASELINE_RATE = 0.5  # of the moving average of rewards that is subtracted


@dataclass(frozen=True)
class Transition:
    """One step: in ``state`` ``action`` was taken, which led to ``following`` (``None``: the end of the episode)."""

    state: Sequence[float]
    action: float
    reward: float
    following: Sequence[float] | None


class Agent:
    """Actor and critic with their slowly following targets, and the transitions to learn from.

    It is deterministic on one machine: everything random comes from a generator of its own, on one thread.

    Args:
        states: numbers in a state.
        capacity: transitions kept; the oldest go.
        seed: of the initial weights and of the batches drawn.
    """

    def __init__(self, states: int, capacity: int, seed: int) -> None:
        import torch
        from torch import nn

        self._generator = torch.Generator().manual_seed(seed)
        self._actor = nn.Sequential(*self._layers(states), nn.Sigmoid())
        self._critic = nn.Sequential(*self._layers(states + 1))  # state and action side by side: W1·s + W2·a
        self._target_actor, self._target_critic = deepcopy(self._actor), deepcopy(self._critic)
        self._actor_optimizer = torch.optim.Adam(self._actor.parameters(), _RATE, fused=True)
        self._critic_optimizer = torch.optim.Adam(self._critic.parameters(), _RATE, fused=True)
        self._memory: deque[Transition] = deque(maxlen=capacity)
        self._baseline: float | None = None

    def act(self, state: Sequence[float]) -> float:
        """The action that the actor holds for best, 0…1."""
        import torch

        with torch.no_grad(), _one_thread():
            return float(self._actor(torch.tensor(state))[0])

    def remember(self, transitions: Iterable[Transition]) -> None:
        """Adds transitions to those that updates draw from."""
        self._memory.extend(transitions)

    def learn(self, updates: int) -> None:
        """Updates both networks this many times, each from a batch drawn from memory."""
        with _one_thread():
            for _ in range(updates):
                self._update()

    def _update(self) -> None:
        import torch

        drawn = torch.randint(len(self._memory), (BATCH,), generator=self._generator).tolist()
        batch = [self._memory[i] for i in drawn]
        states = torch.tensor([t.state for t in batch])
        actions = torch.tensor([[t.action] for t in batch])
        followings = torch.tensor([t.state if t.following is None else t.following for t in batch])
        goes_on = torch.tensor([[float(t.following is not None)] for t in batch])
        rewards = torch.tensor([[t.reward] for t in batch])
        mean = float(rewards.mean())
        self._baseline = mean if self._baseline is None else self._baseline + _BASELINE_RATE * (mean - self._baseline)

        with torch.no_grad():
            later = self._target_critic(torch.cat([followings, self._target_actor(followings)], 1))
            wanted = rewards - self._baseline + _DISCOUNT * goes_on * later
        self._step(self._critic_optimizer, ((self._critic(torch.cat([states, actions], 1)) - wanted) ** 2).mean())
        self._step(self._actor_optimizer, -self._critic(torch.cat([states, self._actor(states)], 1)).mean())
        with torch.no_grad():
            for network, target in ((self._actor, self._target_actor), (self._critic, self._target_critic)):
                for new, old in zip(network.parameters(), target.parameters(), strict=True):
                    old.lerp_(new, _TAU)

    def _step(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _layers(self, inputs: int) -> list[torch.nn.Module]:
        """Two hidden layers and one output; weights uniform in ±1/√inputs, torch's own scale, from this agent's generator."""
        import torch
        from torch import nn

        sizes = [inputs, _HIDDEN, _HIDDEN, 1]
        linear = [nn.utils.skip_init(nn.Linear, *pair) for pair in pairwise(sizes)]  # torch's would use the global generator
        with torch.no_grad():
            for layer, width in zip(linear, sizes, strict=False):
                layer.weight.uniform_(-(width**-0.5), width**-0.5, generator=self._generator)
                layer.bias.uniform_(-(width**-0.5), width**-0.5, generator=self._generator)
            for last in (linear[-1].weight, linear[-1].bias):
                last.mul_(_LAST_LAYER)
        return [linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]]


@contextmanager
def _one_thread() -> Iterator[None]:
    """More threads would add numbers in another order, and gain nothing on networks as small as these."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
