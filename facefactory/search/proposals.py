"""The points of a search, one after the other: those of trials that were begun before, then those of the sampler.

A point that costs more than the space allows is written down as a trial that is infeasible, and another one is drawn.
No point is tried twice.
"""

from dataclasses import dataclass
from typing import Any

import optuna

from facefactory import Failed, registry, say
from facefactory.search.samplers import Sampler
from facefactory.search.space import asked, propose
from facefactory.search.study import Study
from facefactory.trials import Params, Trial, TrialFolder, folder_of, name_of

MOST_REFUSED = 200  # points in a row that cost too much


@dataclass(frozen=True)
class Proposal:
    """A point that a trial is to try."""

    number: int
    params: Params
    folder: TrialFolder
    drawn: Any  # Optuna's trial


class Proposals:
    """What is tried next, by what is known of the trials so far.

    Args:
        study: what is searched.
        planned: points that come first: those of trials that were begun before, or all where the sampler knows them.
        known: numbers of the trials that were begun before, in the order of `planned`; the others have the next free ones.
        is_all: whether `planned` are all points that there are.
    """

    def __init__(
        self, study: Study, planned: list[Params], known: list[int], is_all: bool
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = study
        self.known = known
        self.tried: list[Params] = []
        self.left = len(planned) if is_all else None
        sampler: Sampler = registry.build("search.samplers", {"name": study.options.sampler})
        # with a seed of its own for each continuation it does not propose its first points again
        proposer = sampler.optuna(study.seed * 1000 + len(known))
        better = "minimize" if study.goal.better == "lower" else "maximize"
        self.optuna = optuna.create_study(sampler=proposer, direction=better)
        self.foreign = [self._foreign(trial) for trial in study.history]
        self.optuna.add_trials(self.foreign)
        for params in planned:
            self.optuna.enqueue_trial(asked(params, study.space))

    def next(self) -> Proposal | None:
        """The next point that a trial may try; None: there are no more.

        Failed: the last ones all cost too much.
        """
        why: str | None = None
        for _ in range(MOST_REFUSED):
            if self.left == 0:
                return None
            proposal = self._ask()
            if proposal.params in self.tried:
                self.tell(proposal, None, failed=True)
                continue
            self.tried.append(proposal.params)
            why = self._refused(proposal)
            if why is None:
                return proposal
            say(f"sweep: trial {proposal.folder.path.name} is infeasible: {why}")
            self.tell(proposal, None)

        # a space of few points, or of none that is small enough
        if why is None:
            say("sweep: all that the sampler proposes has been tried; there are no more trials.")
            return None
        raise Failed(
            f"{MOST_REFUSED} points in a row are infeasible (the last: {why}); "
            "raise the constraints of the space, or take the large choices out of it."
        )

    def _refused(self, proposal: Proposal) -> str | None:
        """Why it is not tried, written down; None: it may be."""
        state, why = proposal.folder.ending()
        if state == "infeasible":
            return why
        refusal = self.study.refuse(proposal.params)
        if refusal is None:
            return None
        proposal.folder.begin(proposal.number, proposal.params)
        proposal.folder.end("infeasible", refusal.words, costs=refusal.costs)
        return refusal.words

    def _foreign(self, trial: Trial) -> Any:
        """A trial of an earlier search as Optuna has it; one without a score has failed."""
        drawn = optuna.trial.FixedTrial(asked(trial.params, self.study.space))
        propose(drawn, self.study.space)
        last = trial.last(self.study.goal.metric)
        state = optuna.trial.TrialState.COMPLETE if last else optuna.trial.TrialState.FAIL
        return optuna.trial.create_trial(
            state=state,
            params=drawn.params,
            distributions=drawn.distributions,
            value=last[1] if last else None,
        )

    def _ask(self) -> Proposal:
        if self.left is not None:
            self.left -= 1
        drawn = self.optuna.ask()
        params = propose(drawn, self.study.space)
        number = number_of(drawn.number - len(self.foreign), self.known)
        return Proposal(
            number, params, folder_of(self.study.folder, name_of(number, params)), drawn
        )

    def scored(self, proposal: Proposal, rung: int, score: float) -> None:
        """What a trial scored at its first, second, … rung."""
        proposal.drawn.report(score, rung)

    def tell(self, proposal: Proposal, score: float | None, failed: bool = False) -> None:
        """How a trial ended: with a score, failed, or with none at all."""
        state = optuna.trial.TrialState.COMPLETE
        if score is None or score != score:
            score = None
            state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.PRUNED
        self.optuna.tell(proposal.drawn, score, state)


def number_of(proposed: int, known: list[int]) -> int:
    """A trial's number: its own, if it is replayed (known ones are proposed first), else the next free one."""
    if proposed < len(known):
        return known[proposed]
    return proposed - len(known) + max(known, default=-1) + 1  # a kill may have left gaps
