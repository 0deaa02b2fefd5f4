"""Byte-level language modelling on a file of the user's."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from archdsl.blocks.asking import Direction
from archdsl.search.errors import user_error
from archdsl.search.tasks.anchors import MEMORYLESS, Anchor, Published
from archdsl.search.tasks.base import TRAINING, LearningTask, random_stream

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from archdsl.search.tasks.base import Judge, Tokens

HELD_OUT_SHARE = 10
"""One part in this many, the last of the file, is never trained on."""

SAMPLE_LENGTH = 400
"""Bytes of generated text that the report shows."""


EXAMPLE = 200_000
"""Bytes of the text that the task is verified on."""


class Text(LearningTask):
    """Predict the next byte of a text.

    The last tenth of the file is held out. ``bits_per_byte`` is the mean cross-entropy in bits over
    windows of ``length`` bytes spread evenly over the held-out part; every byte but a window's first
    is predicted, from the bytes of its window alone. No tokeniser, so models of any design compare.

    Args:
        path: the file, relative to the spec; ``none`` where it is given beside the spec
            (``--data PATH``), which also replaces a path.
        length: bytes of one window.
    """

    name: ClassVar[str] = "text"
    measures: ClassVar[dict[str, Direction]] = {"bits_per_byte": "minimize"}
    published: ClassVar[Published] = Published(
        vocabulary=256,
        positions=256,
        scored=1.0,
        anchors=(  # the source of `example` has 0.99 bits, and a window does not know its first byte but one
            Anchor("deltanet(heads = 1)", 1.1, steps=200, sizes="length = 64"),
            Anchor(MEMORYLESS, 1.95, solves=False, steps=50, sizes="length = 64"),
        ),
    )

    path: str | None = None
    length: Annotated[int, Field(ge=2, le=1_000_000)] = 256

    @property
    def symbols(self) -> int:
        """One for each byte."""
        return 256

    @property
    def positions(self) -> int:
        """``length``."""
        return self.length

    def example(self, folder: Path) -> Path:
        """A text of known entropy, 0.99 bits a byte; without the byte before the last one, 2 bits.

        Three in four bytes repeat the one two places before; the others are any of four, evenly.
        """
        import numpy as np

        random = np.random.default_rng(0)
        fresh, bytes_ = random.random(EXAMPLE) < 1 / 4, random.integers(97, 101, EXAMPLE)
        for start in (0, 1):
            own = bytes_[start::2]
            last = np.maximum.accumulate(np.where(fresh[start::2], np.arange(len(own)), 0))
            bytes_[start::2] = own[last]
        path = folder / "example.txt"
        path.write_bytes(bytes_.astype(np.uint8).tobytes())
        return path

    def bind(self, data: Path | None, folder: Path) -> Self:
        """``data`` where the user gave it, else the spec's own path behind ``folder``."""
        if data is None and self.path is None:
            return self
        place = data if data is not None else folder / str(self.path)
        return self.model_copy(update={"path": str(place.absolute())})

    def prepare(self) -> None:
        """Raise where the file is missing, empty or too short."""
        if self.path is None:
            raise user_error("no-data", "the task `text` has no file to learn from",
                           "name one with `--data PATH`, or in the spec: `text(path = \"…\")`")  # fmt: skip
        size, least = len(self._bytes()), HELD_OUT_SHARE * (self.length + 1)
        if size == 0:
            raise user_error("empty-data", f"`{self.path}` is empty", "name a file with text in it")
        if size < least:
            raise user_error(
                "short-data",
                f"`{self.path}` has {size:,} bytes, and windows of {self.length} need {least:,}",
                f"name a longer file, or set `length` to {max(2, size // HELD_OUT_SHARE - 1)} or less",
            )

    def fingerprint(self) -> str:
        """The SHA-256 of the file."""
        return sha256(self._bytes()).hexdigest()

    def batch(self, count: int, seed: int, step: int) -> tuple[Tokens, Tokens]:
        """Windows of the training part at random places."""
        text = self._part(held_out=False)
        random = random_stream(TRAINING, seed, step)
        return self._windows(text, random.integers(len(text) - self.length, size=count))

    def held_out(self, count: int, seed: int) -> tuple[Tokens, Tokens]:
        """At most ``count`` windows of the last tenth, the same for every architecture."""
        import numpy as np

        text = self._part(held_out=True)
        room = len(text) - self.length
        starts = np.linspace(0, room - 1, min(count, -(-room // self.length))).astype(np.int64)
        return self._windows(text, starts)

    def evaluate(self, judge: Judge, count: int, seed: int) -> dict[str, float]:
        """Bits per byte over at most ``count`` windows."""
        found = judge.losses(*self.held_out(count, seed))
        return {"bits_per_byte": float(found.mean()) / log(2)}

    def sample(self, judge: Judge, seed: int) -> str:
        """Text written by the model behind the first bytes of the held-out part."""
        prompt = self._part(held_out=True)[None, : min(self.length, 64)].astype("int64")
        written = judge.generate(prompt, SAMPLE_LENGTH, seed)
        return _readable(bytes(prompt[0].tolist()) + bytes(written[0].tolist()))

    def _windows(self, text: NDArray[np.uint8], starts: Tokens) -> tuple[Tokens, Tokens]:
        import numpy as np

        windows = text[starts[:, None] + np.arange(self.length + 1)].astype(np.int64)
        return windows[:, :-1], windows[:, 1:]

    def _part(self, held_out: bool) -> NDArray[np.uint8]:
        import numpy as np

        text = np.frombuffer(self._bytes(), dtype=np.uint8)
        cut = len(text) - len(text) // HELD_OUT_SHARE
        return text[cut:] if held_out else text[:cut]

    def _bytes(self) -> bytes:
        path = Path(str(self.path))
        try:
            status = path.stat()
            return _read(path, status.st_size, status.st_mtime_ns)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise user_error("unreadable-data", f"`{path}` cannot be read: {why}",
                           "check the path given with `--data` or in the spec") from None  # fmt: skip


@lru_cache(maxsize=4)
def _read(path: Path, size: int, changed: int) -> bytes:
    return path.read_bytes()


def _readable(text: bytes) -> str:
    """UTF-8 where it is, with signs in place of what is not text."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{MIDDLE DOT}"
                   for c in text.decode("utf-8", errors="replace"))  # fmt: skip
