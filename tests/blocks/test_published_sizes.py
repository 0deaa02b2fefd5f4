"""Released models, said in the language, have exactly the parameters of the released weights.

A count is of every tensor in the published files (their index's total size over two bytes a number),
for the published configuration; nothing here is built.
"""

from __future__ import annotations

import pytest

import archdsl

BLOCK = "def block(mixer, channel) { residual { rms_norm  mixer } residual { rms_norm  channel } }"

JAMBA = """
let memory = mamba(states = 16, rank = 256, norm = true)
let full = attention(heads = 32, kv_heads = 8)
let dense = swiglu(expand = 7/2)
let experts = moe(experts = 16, top = 2, weights = probability) { dense }

model {
    embed(dim = 4096, vocab = 65536)
    stack(depth = 32, cycle = [m, e, m, e, a, e, m, e]) {
        m: block(memory, dense)
        e: block(memory, experts)
        a: block(full, dense)
    }
    rms_norm
    lm_head
}
"""

RELEASED = {
    "ai21labs/Jamba-v0.1": (JAMBA, 51_570_323_328),
}


@pytest.mark.parametrize("name", RELEASED)
def test_it_has_the_released_parameters(name: str) -> None:
    text, count = RELEASED[name]
    assert archdsl.loads(BLOCK + text).sample(0).cost.params == count
