"""Messages of a component in the words of the user."""

from __future__ import annotations

import re
from collections.abc import Mapping

QUOTED = re.compile(r"`[^`]*`")
"""What a message quotes of the language."""


def worded(text: str, words: Mapping[str, str]) -> str:
    """A text in which a component speaks of itself and an argument, in the ``words`` the user wrote.

    They differ for the named mixers of the standard library: who wrote ``gla`` has not heard of ``miras``.
    """
    differing = [re.escape(name) for name, word in words.items() if name != word]
    if not differing:
        return text
    names = re.compile(rf"\b(?:{'|'.join(differing)})\b")
    return QUOTED.sub(lambda part: names.sub(lambda name: words[name[0]], part[0]), text)
