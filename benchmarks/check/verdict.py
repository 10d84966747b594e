"""How a property ends when it does not hold: what is wrong, and how to mend it."""

from __future__ import annotations

#: how to mend what is not a number
NOT_FINITE = "look for a logarithm of zero, an exponential that is not bounded, or a division by zero"


class Wrong(Exception):
    """A property that does not hold.

    Args:
        what: one sentence without its full stop, with the numbers that show it.
        mend: what to do about it, likewise.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}; {mend}")
        self.what, self.mend = what, mend


class Inapplicable(Exception):
    """A property that this variant cannot have, with the reason."""


def hold(condition: bool, what: str, mend: str) -> None:
    """Raise `Wrong` unless ``condition``."""
    if not condition:
        raise Wrong(what, mend)
