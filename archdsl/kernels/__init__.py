"""Recurrence kernels: tensors in, tensors out, no configs.

The contract every family keeps
-------------------------------
* Layout [B, T, H, D]. Gates are in log space and <= 0: [B, T, H] per head, [B, T, H, K] per
  channel.
* Accumulation and states are float32, or float64 when an input is float64. Outputs have the dtype
  of the values.
* Every form takes an initial state and returns the final one, with gradients through both: running
  a sequence in parts and carrying the state equals running it whole.
* Packed sequences: B = 1, `cu_seqlens` [N + 1], a state with N rows; empty sequences keep their
  state.
* A token of zeros is the identity (no write, log decay 0), so padding at the end changes nothing.
* No exponent above 0, except where the decay was measured to be small: over a chunk
  (`gates.FactoredGate`), or inside a leaf (`split.ChannelGate`).
* `choose(...)` names the form that will run and says why; `backend=` forces one.

One folder a family, the same files in each: `reference` (the recurrence as written), `chunked`
(chunk parallel PyTorch with a hand-written backward, registered as one operator), `step` (one
decode token), `dispatch` (the public function), `flops` (operations and chunk length, no torch).
`learner` is its own: it takes a point as data (`learner.rule`), autograd is its backward, a decode
token is a part of a chunk, and packed sequences are blocks of chunks that shrink (`shrinking`), as
the steps of cells are.

Adding a variant
----------------
1. Say it as data: a gate shape, another erase key, a read before the write, one more value channel.
   Most published mixers are a choice of arguments; then only step 5 is needed.
2. Otherwise add the argument to `reference`, as the paper writes it.
3. Carry it through `chunked` (forward and backward) and `step`; a zero token must stay the
   identity.
4. Count its matrix products in `flops`; `tests/kernels/test_kernel_flops.py` holds it to zero
   difference.
5. Add its published token loop to `tests/kernels/published_*.py`: every parity test then covers it.

Adding a family
---------------
1. Write `reference.py` from the equations and `flops.py` without torch.
2. Write `chunked.py` as functions of windows of chunks (`common.windows`, `load`, `store`) and
   register it with a fake, an autograd formula and a FLOP formula.
3. Write `step.py`, then `dispatch.py` with `choose` and the public function; export it in
   `__init__.py`.
4. Add its members to the tests as above, and a row to `bench.py`.
"""
