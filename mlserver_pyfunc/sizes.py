"""Amounts of bytes as people write them."""

from __future__ import annotations

import re


def in_bytes(text: str) -> int:
    """Reads bytes, `512M` or `1.5 GiB`; each unit is 1024 of the one below.

    Raises:
        ValueError: The text is no such amount.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f'expected bytes, for example 512M or 10G, got "{text}"')
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))
