"""What every answer to bad input must be."""


def refusal(answer, *codes):
    """A client's error in S3's own words; one of `codes` when any are given. Never a crash, never an acceptance."""
    assert 400 <= answer.status < 500, f"{answer} instead of a refusal"
    assert answer.code, f"{answer}: no error code of S3"
    assert not codes or answer.code in codes, f"{answer} instead of {' or '.join(codes)}"
    return answer


def harmless(answer):
    """Where HTTP itself is broken: refused or closed without S3's words, or answered properly; never a crash."""
    assert answer.status < 500 or answer.status in (501, 505), f"{answer}"
    return answer


def unharmed(door):
    """The endpoint still serves."""
    assert door.get(door.put(b"still here")) == b"still here"
