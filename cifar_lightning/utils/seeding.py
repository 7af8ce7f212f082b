"""Seeds derived so that every random choice depends on where it is made, not on what was drawn before it."""

import hashlib


def derive(seed: int, purpose: str, index: int) -> int:
    """Return a seed, 0 to 2**63 - 1: its own for each purpose and index (an epoch, say), the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
