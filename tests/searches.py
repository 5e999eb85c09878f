"""What searches do, watched."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.search.scorer import Scorer, Trial


def fitted_from_now_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the candidates whose scores are not taken from notes."""
    fitted: list[int] = []
    scored = Scorer._fitted

    def watched(self: Scorer, number: int, *more: Any) -> Trial:
        fitted.append(number)
        return scored(self, number, *more)

    monkeypatch.setattr(Scorer, "_fitted", watched)
    return fitted
