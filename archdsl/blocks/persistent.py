"""``persistent_attention``: softmax attention whose every token also sees learned keys and values."""

from __future__ import annotations

from typing import ClassVar

from archdsl.blocks.attention import Attention
from archdsl.blocks.base import Count
from archdsl.blocks.ops.attention import SoftmaxAttention
from archdsl.blocks.ops.persistent import PersistentAttention


class PersistentAttentionLayer(Attention):
    """Attention over ``persistent`` learned places and the tokens, or those within a window.

    The learned tokens that Titans puts before every segment or window (arXiv 2501.00663 §3.3), as the
    keys and values that attention makes of them.
    """

    name: ClassVar[str] = "persistent_attention"
    persistent: Count = 4

    def _core(self, width: int, size: int) -> SoftmaxAttention:
        core = super()._core(width, size)
        return PersistentAttention(**dict(core), persistent=self.persistent)
