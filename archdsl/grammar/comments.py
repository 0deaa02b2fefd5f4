"""The comments of a file, handed out to the formatter in the order of the text."""

from __future__ import annotations

from bisect import bisect_left

from archdsl.grammar import ast


class Comments:
    """A queue of comments, and what the user's text looks like around them.

    A comment is handed out once, so that none is lost and none is written twice.
    """

    def __init__(self, program: ast.Program) -> None:
        self.text = program.span.source.text
        self._comments = program.comments
        self._starts = [comment.span.start for comment in program.comments]
        self._next = 0

    def take(self, end: int) -> tuple[ast.Comment, ...]:
        """The comments before an offset that are not handed out yet."""
        first, self._next = self._next, max(self._next, bisect_left(self._starts, end))
        return self._comments[first : self._next]

    def beside(self, end: int, limit: int) -> ast.Comment | None:
        """The comment that follows ``end`` on its line, if it begins before ``limit``."""
        if self._next >= len(self._starts) or self._starts[self._next] >= limit:
            return None
        if "\n" in self.text[end : self._starts[self._next]]:
            return None
        self._next += 1
        return self._comments[self._next - 1]

    def within(self, start: int, end: int) -> bool:
        """Whether a comment between two offsets is not handed out yet."""
        after = bisect_left(self._starts, start, lo=self._next)
        return after < len(self._starts) and self._starts[after] < end

    def blank_line(self, end: int, start: int) -> bool:
        """Whether the user left a blank line between two offsets."""
        return self.text[end:start].count("\n") > 1

    def find(self, sign: str, start: int) -> int:
        """The next place of a sign that is not inside a comment."""
        place = self.text.find(sign, start)
        while place >= 0:
            index = bisect_left(self._starts, place + 1) - 1
            if index < 0 or self._comments[index].span.end <= place:
                return place
            place = self.text.find(sign, self._comments[index].span.end)
        return start


def comment_text(comment: ast.Comment) -> str:
    """A comment as it is written: a blank behind the sign, unless it is a sign itself."""
    if not comment.text:
        return "#"
    return f"#{comment.text}" if comment.text[0] in "#!" else f"# {comment.text}"
