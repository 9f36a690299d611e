"""Rounds of measurements, and their medians."""

import statistics
import sys
import time
from dataclasses import dataclass, field

from processes import Cannot


@dataclass
class Goal:
    """The limit of a ratio or of a difference."""

    who: str
    against: str
    most: float
    text: str
    added: bool = False  # a difference in the unit of the row instead of a ratio


@dataclass
class Row:
    key: str
    work: str
    baseline: str
    goals: list = field(default_factory=list)
    unit: str = "ns"
    where: str = ""  # if it is not this machine
    samples: dict = field(default_factory=dict)  # who → round → value
    notes: dict = field(default_factory=dict)  # who → why there is no number, or a remark

    def values(self, who):
        return list(self.samples.get(who, {}).values())

    def paired(self, who, against, of):
        """The median of the ratios of the two within each round."""
        ours, theirs = self.samples.get(who, {}), self.samples.get(against, {})
        pairs = [of(ours[n], theirs[n]) for n in ours if n in theirs]
        return statistics.median(pairs) if pairs else None

    def ratio(self, who, against):
        if not any(self.values(against)):
            return None  # the other one has no count
        return self.paired(who, against, lambda a, b: a / b)

    def got(self, goal):
        if goal.added:
            return self.paired(goal.who, goal.against, lambda a, b: a - b)
        return self.ratio(goal.who, goal.against)


def measure(row, contenders, rounds, warm_up=1, only=None):
    """Measures each contender once a round. Each round begins with another one.

    `only` has contenders that take long and are asked in the first rounds alone.
    """
    began = time.monotonic()
    only = only or {}
    contenders = list(contenders.items())
    out = set()
    for number in range(-warm_up, rounds):
        turn = number % len(contenders)
        for who, ask in contenders[turn:] + contenders[:turn]:
            limit = only.get(who, rounds)
            if who in out or number >= limit or (number < 0 and who in only):
                continue
            try:
                value = ask()
            except Cannot as why:
                row.notes[who] = str(why)
                out.add(who)
                continue
            if number >= 0:
                row.samples.setdefault(who, {})[number] = value
    print(f"{time.monotonic() - began:6.1f} s  {row.work}", file=sys.stderr, flush=True)
    return row
