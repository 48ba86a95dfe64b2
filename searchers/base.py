"""The contract between a search algorithm and whoever runs its trials: ask for a proposal, tell what came of it.

A searcher is a deterministic machine: its state is a function of its arguments and of the sequence of asks and tells.
Nothing is pickled. Whoever keeps that sequence (the job's rows) can rebuild the searcher after a crash by ``replay``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from pruners.errors import SecateurError
from searchers.space import SearchSpace, Widths


@dataclass(frozen=True)
class Training:
    """How a trial trains, in place of a bare cut.

    Attributes:
        schedule: that it trains by for the cut, its name among the pruners such as ``admm``; ``None``: it cuts at once.
        params: its parameters, by name.
        retrain: epochs of training that follow the cut.
    """

    schedule: str | None
    params: tuple[tuple[str, int | float | str], ...] = ()
    retrain: int = 0


@dataclass(frozen=True)
class Rival:
    """What a trial has to beat: it may end before it has seen all images, once it is certain that it does not.

    Attributes:
        number: of a proposal that was told, having seen all images, and whose losses on the same images help to tell.
        bar: the score to reach.
        confidence: how certain to be, 0.5…1, both excluded.
    """

    number: int
    bar: float
    confidence: float


@dataclass(frozen=True)
class Proposal:
    """Widths to try.

    Attributes:
        id: 0, 1, 2, … in the order of asking; the trial's number.
        widths: channels to keep in each group of the space, in its order; groups outside the search are dense.
        note: why this one, in a few words for a person ("round 3: layer2.0.conv1").
        parent: the proposal whose resulting network, weights and all, this one is cut from; it was told, with a score,
            and is as wide or wider in every group. ``None``: the dense network. Parents never go back: a proposal names none
            that is older than the last one that was named.
        training: how the cut is reached and what follows it; ``None``: at once, and nothing.
        rival: whether it may end early; ``None``: it sees all images. It follows from what was told before, so no record holds
            it, and proposals that differ in it alone are equal.
    """

    id: int
    widths: tuple[int, ...]
    note: str = ""
    parent: int | None = None
    training: Training | None = None
    rival: Rival | None = field(default=None, compare=False)

    @property
    def bare(self) -> bool:
        """Whether this is a cut of the dense network and no more, so that its outcome says the same in any search."""
        return self.parent is None and self.training is None


@dataclass(frozen=True)
class Wait:
    """Nothing to propose until a running proposal is told."""


@dataclass(frozen=True)
class Done:
    """The search is over; nothing will be proposed any more."""


@dataclass(frozen=True)
class Outcome:
    """What a trial found, or that it failed.

    Attributes:
        score: what the search maximises (higher is better); ``None`` if the trial failed. Of one that ended early, an estimate.
        metric: the task's on the search images, for people; ``None`` if the trial failed or ended early.
        error: one sentence if the trial failed, else ``None``.
        drop: an upper bound of what the metric lost, if the job holds it to one: that which as many inputs as will confirm the
            winner would give, were they like the search inputs. In the metric's unit, more is worse.
    """

    score: float | None
    metric: float | None = None
    error: str | None = None
    drop: float | None = None


class Params(BaseModel):
    """Base of every searcher's parameters: unknown ones are refused, the JSON Schema is the documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warm_start: str | None = Field(
        None,
        description="Id of an earlier job on the same model and data, scored alike: its successful trials are known from the "
        "start and count as this job's.",
    )


_Params: TypeAlias = Params  # inside ``Searcher`` the plain name means the class attribute


class Searcher(ABC):
    """Base of all searchers.

    A searcher may be given trials of an earlier search before its first ask (``give``). They take the first numbers and are
    not proposed again; ``max_trials`` does not count them. What ``params.warm_start`` names is given by whoever keeps the
    record.

    Args:
        space: the groups, their widths and the budget.
        params: an instance of the class attribute ``Params``.
        seed: every random choice derives from it.
        max_trials: proposals that may be made at most; a searcher plans its search to fit.

    Raises:
        InvalidInput: from the constructor, when this search cannot reach the budget or fit ``max_trials``.
    """

    Params: type[_Params] = Params
    reference: str = ""
    """The paper or source, for ``GET /searchers``; the class docstring's first line is the description."""

    names_parents: bool = False
    """Whether its proposals may name a parent, so that networks are to be kept for them."""

    names_rivals: bool = False
    """Whether its proposals may name a rival, so that losses by image are to be kept for them."""

    trains_rounds: bool = False
    """Whether it trains towards its one budget as it goes, so that nothing of it serves another budget."""

    def __init__(self, space: SearchSpace, params: _Params, seed: int, max_trials: int) -> None:
        self.space = space
        self.params = params
        self.seed = seed
        self.max_trials = max_trials
        self.given: list[Given] = []

    def expect_training(self) -> None:  # noqa: B027 - not abstract: doing nothing is right for most
        """To be called before the first ask where every trial trains its network, so that it matters which one it is cut from.

        Most searches do not care: each of their trials starts from the dense network.
        """

    @property
    @abstractmethod
    def planned_trials(self) -> int:
        """How many proposals this search will make at most, for progress bars; given trials are none."""

    @property
    def ladder(self) -> list[int]:
        """Of a search for the smallest network that keeps the metric, the proposals that did, the costliest first."""
        return []

    def give(self, trial: Given) -> None:
        """Takes what an earlier search found out; only before the first ask.

        Raises:
            ValueError: the trial is not the next in number, not of this space, no bare cut, or given already.
        """
        proposal = trial.proposal
        if proposal.id != len(self.given):
            raise ValueError(f"given trial {proposal.id} is not the next, which has the number {len(self.given)}")
        if not self.space.holds(proposal.widths):
            raise ValueError(f"given trial {proposal.id} has the widths {proposal.widths}, which are not of this space")
        if not proposal.bare:
            raise ValueError(f"given trial {proposal.id} is no cut of the dense network")
        if proposal.widths in self.given_widths:
            raise ValueError(f"given trial {proposal.id} has widths that an earlier one has")
        self.given.append(trial)

    @property
    def given_widths(self) -> set[Widths]:
        """The plans whose outcome was known before the first ask."""
        return {trial.proposal.widths for trial in self.given}

    @abstractmethod
    def ask(self) -> Proposal | Wait | Done:
        """The next proposal; ``Wait`` only while at least one proposal has not been told."""

    @abstractmethod
    def tell(self, proposal_id: int, outcome: Outcome) -> None:
        """Takes one proposal's outcome, in any order, each exactly once."""


class ReplayMismatch(SecateurError):
    """A replayed ask differs from the recorded one: another version or other settings wrote the record."""


@dataclass(frozen=True)
class Given:
    """Record: ``give`` was called with this: an earlier search's plan, numbered as a trial of this one, and its outcome."""

    proposal: Proposal
    outcome: Outcome


@dataclass(frozen=True)
class Asked:
    """Record: ``ask`` returned this proposal."""

    proposal: Proposal


@dataclass(frozen=True)
class Told:
    """Record: ``tell`` was called with this."""

    proposal_id: int
    outcome: Outcome


Record: TypeAlias = Given | Asked | Told
"""One entry of the record of a search; all that are ``Given`` come first."""


def replay(searcher: Searcher, record: Iterable[Record]) -> dict[int, Proposal]:
    """Brings a fresh searcher to the state in which the record ends.

    Returns:
        All proposals by their ids, those that were given too, with their rivals.

    Raises:
        ReplayMismatch: a replayed ask is not the recorded one.
    """
    proposals: dict[int, Proposal] = {}
    for entry in record:
        if isinstance(entry, Told):
            searcher.tell(entry.proposal_id, entry.outcome)
            continue
        proposal = entry.proposal
        if isinstance(entry, Given):
            searcher.give(entry)
        else:
            answer = searcher.ask()
            if not isinstance(answer, Proposal) or answer != proposal:
                raise ReplayMismatch(f"Replayed ask {proposal.id} gave {answer}, but {proposal} is on record.")
            proposal = answer
        proposals[proposal.id] = proposal
    return proposals


def ranked(
    proposals: Mapping[int, Proposal], outcomes: Mapping[int, Outcome], fits: Callable[[Widths], bool]
) -> list[Proposal]:
    """The proposals whose widths fit, the highest score first and of equals the earlier; those that failed are left out."""
    scored = [
        (-outcome.score, number)
        for number, outcome in outcomes.items()
        if outcome.score is not None and fits(proposals[number].widths)
    ]
    return [proposals[number] for _, number in sorted(scored)]


def front(proposals: Mapping[int, Proposal], outcomes: Mapping[int, Outcome], cost: Callable[[Widths], int]) -> list[Proposal]:
    """The proposals that no other one beats in both score and cost, the cheapest first; those that ended early do not count."""
    scored = sorted(
        (cost(proposals[number].widths), -outcome.score, number)
        for number, outcome in outcomes.items()
        if outcome.score is not None and outcome.metric is not None
    )
    found: list[Proposal] = []
    least = math.inf
    for _, loss, number in scored:
        if loss < least:
            least = loss
            found.append(proposals[number])
    return found


def parse_params(searcher: type[Searcher], params: dict[str, Any]) -> Params:
    """The searcher's parameters from what a user sent; pydantic's ``ValidationError`` names what is wrong."""
    return searcher.Params.model_validate(params)
