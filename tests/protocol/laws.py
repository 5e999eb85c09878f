"""What must hold in every state, after every step, and what an end is."""

from __future__ import annotations

from tests.protocol.world import GOOD, TRAINING, UP, Scenario, State


class Laws:
    """Each names what is broken, in words."""

    def __init__(self, scenario: Scenario) -> None:
        self._records = scenario.records
        self._models = scenario.models

    def broken(self, before: State, after: State) -> str | None:
        """By the step from one state to the other; None if all is well."""
        if before.outcomes != after.outcomes:
            for request, (was, now) in enumerate(zip(before.outcomes, after.outcomes, strict=True)):
                if was not in (None, now):
                    return "an outcome has changed"
                if was is None and now is not None and now[0] != GOOD and not self._entitled(before, request, now):
                    return "a negative outcome came from somebody who does not own the claim"
        if before.documents != after.documents and (why := self._versions(after)):
            return why
        if (before.events, before.committed) != (after.events, after.committed) and (why := self._announced(after)):
            return why
        return self._trained_twice(after)

    def ended(self, state: State) -> bool:
        """Whether every request is terminal and announced, and every record accounted for."""
        said = [self._records[one.record][1] for one in state.events]
        committed = sum(state.committed)
        return (
            None not in state.outcomes
            and sorted(said) == list(range(len(self._models)))
            and committed == (1 << len(self._records)) - 1
        )

    def _entitled(self, state: State, request: int, outcome: tuple[str, int]) -> bool:
        claim = state.claims[request]
        assert claim is not None
        if claim.closing == outcome:
            return True
        return claim.owner is not None and claim.owner == (outcome[1], state.workers[outcome[1]].boot)

    def _versions(self, state: State) -> str | None:
        numbers = dict(state.documents)
        if len(numbers) < len(state.documents):
            return "a request has two versions"
        for model in set(self._models):
            taken = sorted(version for request, version in state.documents if self._models[request] == model)
            if taken != list(range(1, len(taken) + 1)):
                return f"the versions of a model are {taken}"
        for number, (partition, request) in enumerate(self._records):
            for at, earlier in self._records[:number]:
                in_line = at == partition and self._models[earlier] == self._models[request]
                unfinished = state.outcomes[earlier] is None
                if in_line and request in numbers and (unfinished or numbers.get(earlier, 0) > numbers[request]):
                    return "versions are out of the topic's order"
        return None

    def _announced(self, state: State) -> str | None:
        said = [self._records[one.record][1] for one in state.events]
        if len(set(said)) < len(said):
            return "a request has two terminal events"
        documents = dict(state.documents)
        for one, request in zip(state.events, said, strict=True):
            if one.outcome != state.outcomes[request]:
                return "a terminal event differs from the outcome"
            if one.version != documents.get(request, 0):
                return "a terminal event differs from the registry"
        for number, (partition, request) in enumerate(self._records):
            if state.committed[partition] >> number & 1:
                if state.outcomes[request] is None:
                    return "an offset is committed before its outcome is durable"
                claim = state.claims[request]
                if claim is not None and claim.home == number and request not in said:
                    return "an offset is committed without its event"
        return None

    def _trained_twice(self, state: State) -> str | None:
        """Only who was stopped past its lease, or died, may have its training repeated."""
        first, second = state.workers
        if first.status == second.status == UP and first.honest and second.honest:
            for one, other in zip(first.jobs, second.jobs, strict=True):
                if one is not None and other is not None and one.phase == other.phase == TRAINING:
                    return "two workers that live train the same request"
        return None
