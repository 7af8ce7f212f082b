"""Every random choice is a function of the seed and of where it is made, not of what was drawn before it."""

import hashlib


def derive(seed: int, purpose: str, index: int) -> int:
    """Mixes a seed with what it is for and an index (an epoch, say) into a new one.

    Returns:
        0 to 2**63 - 1; the same on every machine. Different arguments give unrelated streams.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
