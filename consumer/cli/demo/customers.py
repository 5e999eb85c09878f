"""A made-up dataset with words, numbers, booleans and gaps: which customers left?"""

from __future__ import annotations

import random
from pathlib import Path

CUSTOMERS = "churn-demo"
FEES = {"basic": 19.0, "plus": 35.0, "pro": 60.0}
COUNT = 400

ROWS = """\
plan,months,support_calls,monthly_fee,newsletter
pro,48,0,61.0,true
basic,3,7,19.5,false
plus,14,,,
student,2,4,9.9,false
"""
"""To be scored: the third has gaps, the fourth a plan that no customer had."""


def write_customers(file: Path) -> None:
    """Write them as CSV, the same ones each time; a file that is there stays as it is."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draw = random.Random(7)
    lines = ["plan,months,support_calls,monthly_fee,newsletter,left", *(_customer(draw) for _ in range(COUNT))]
    file.write_text("\n".join(lines) + "\n")


def _customer(draw: random.Random) -> str:
    plan, months, calls = draw.choice([*FEES]), draw.randint(1, 60), min(9, int(draw.expovariate(0.5)))
    fee, newsletter = round(FEES[plan] + draw.gauss(0, 3), 1), draw.random() < 0.6
    leaning = 1.2 * calls - 0.12 * months - 1.5 * newsletter + (plan == "basic") + draw.gauss(0, 1)
    values = (plan, months, calls, fee, str(newsletter).lower())
    known = ["" if draw.random() < 0.04 else str(value) for value in values]
    return ",".join([*known, "yes" if leaning > -0.5 else "no"])
