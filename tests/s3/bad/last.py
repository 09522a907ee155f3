"""The look at the slow senders: imported behind all other checks."""

from bad.rules import unharmed
from bad.senders import PATIENCE_S, SENDERS
from kit.suite import check


@check
def senders_that_are_slow_are_ended(door):
    """Limits of this door: heads and bodies that never end are timed out, whether they drip or stand still"""
    senders = SENDERS.pop()
    senders.join()
    still = sorted(senders.rests.keys() - senders.ended.keys())
    assert not still, f"after {PATIENCE_S} s the door still waits for {', '.join(still)}; ended: {senders.ended}"
    unharmed(door)
