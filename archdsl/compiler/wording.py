"""Messages of a component in the words of the user."""

from __future__ import annotations

import re

QUOTED = re.compile(r"`[^`]*`")
"""What a message quotes of the language."""


def worded(text: str, name: str, word: str) -> str:
    """A text in which a component called ``name`` speaks of itself, with the ``word`` the user wrote.

    They differ for the named mixers of the standard library: who wrote ``gla`` has not heard of ``miras``.
    """
    if name == word:
        return text
    return QUOTED.sub(lambda part: re.sub(rf"\b{name}\b", word, part[0]), text)
