"""Seeds from names: the same for the same parts, on every machine and in every process."""

from __future__ import annotations

from hashlib import blake2b


def seed_of(*parts: object) -> int:
    """A seed below 2³¹ that depends on ``parts`` alone."""
    digest = blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31
