"""The drawn tasks against what their publications say, told again in plain loops."""

import numpy as np
import pytest
import torch
from torch import nn

from archdsl.blocks.base import Invalid
from archdsl.search.tasks.automata import Automata
from archdsl.search.tasks.base import IGNORED
from archdsl.search.tasks.compression import Compression
from archdsl.search.tasks.decoder import Decoded
from archdsl.search.tasks.drawn import macro_accuracy
from archdsl.search.tasks.forgetting_mqar import ForgettingMQAR
from archdsl.search.tasks.fuzzy_in_context_recall import FuzzyInContextRecall
from archdsl.search.tasks.in_context_recall import InContextRecall, NoisyInContextRecall
from archdsl.search.tasks.memorization import Memorization
from archdsl.search.tasks.selective_copying import SelectiveCopying


def draw(task, count=40, judged=True):
    task.verify()
    return task.draw(np.random.default_rng(0), count, judged)


@pytest.mark.parametrize(
    "task", [InContextRecall(), NoisyInContextRecall(), FuzzyInContextRecall()]
)
def test_in_context_recall_learns_every_next_token(task):
    tokens, targets = draw(task, judged=False)
    np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])
    assert (targets != IGNORED).all()


@pytest.mark.parametrize("task", [InContextRecall(), NoisyInContextRecall()])
def test_in_context_recall_judges_the_values_of_keys_seen_before(task):
    content = task.vocab - task.noise_vocab
    for row, judged in zip(*draw(task), strict=True):
        known = {}
        whole = np.append(row, judged[-1])
        for key, value, answer in zip(whole[::2], whole[1::2], judged[::2], strict=True):
            if key >= content:
                assert value >= content
                assert answer == IGNORED
                continue
            assert key < content // 2 <= value < content
            assert known.setdefault(key, value) == value
            assert answer in (value, IGNORED)
        assert judged[-1] == known[row[-1]]
        assert (judged[1::2] == IGNORED).all()


def test_in_context_recall_judges_each_repetition_and_nothing_else():
    for row, judged in zip(*draw(InContextRecall(length=32)), strict=True):
        keys = row[::2].tolist()
        repeated = [key in keys[:place] for place, key in enumerate(keys)]
        assert (judged[::2] != IGNORED).tolist() == repeated


def test_a_fifth_of_the_pairs_is_noise():
    tokens, _ = draw(NoisyInContextRecall(), 500)
    # the last pair and one other are never noise
    assert (tokens[:, ::2] >= 16).mean() == pytest.approx(0.2 * 62 / 64, rel=0.05)


def test_fuzzy_recall_asks_for_long_keys_and_fills_in_front():
    task = FuzzyInContextRecall()
    for row, judged in zip(*draw(task, 60), strict=True):
        whole = np.append(row, judged[-1]).tolist()
        body = whole[next(i for i, token in enumerate(whole) if token != 15) :]
        assert 15 not in body
        pairs = list(motifs(body, half=7))
        known = {}
        for key, value in pairs:
            assert len(key) == 3
            assert 1 <= len(value) <= 3
            assert len(set(key)) == 3
            assert known.setdefault(key, value) == value
        assert pairs[-1] in pairs[:-1]
        answers = [token for token in judged.tolist() if token != IGNORED]
        assert answers[-len(pairs[-1][1]) :] == list(pairs[-1][1])


def motifs(tokens, half):
    """Keys and values: runs below and above ``half``; judged keys are not told apart by length."""
    place = 0
    while place < len(tokens):
        start = place
        while place < len(tokens) and tokens[place] < half:
            place += 1
        key, start = tuple(tokens[start:place]), place
        while place < len(tokens) and tokens[place] >= half:
            place += 1
        yield key, tuple(tokens[start:place])


def test_fuzzy_recall_trains_on_keys_of_every_size():
    tokens, _ = draw(FuzzyInContextRecall(), 60, judged=False)
    body = [token for token in tokens[0].tolist() if token != 15]
    assert {len(key) for key, _ in motifs(body, half=7)} >= {1, 2, 3}


def test_selective_copying_wants_what_stood_between_the_blanks():
    for row, target in zip(*draw(SelectiveCopying(length=40, tokens=6)), strict=True):
        assert row[-7] == 15
        assert (row[-6:] == 14).all()
        shown = [token for token in row[:-7] if token != 14]
        assert target[-6:].tolist() == shown
        assert (target[:-6] == IGNORED).all()
        assert row[-8] != 14


def test_memorization_has_the_published_map():
    keys, values = Memorization().facts()
    assert list(zip(keys, values, strict=True))[:4] == [
        (120, 175),
        (0, 239),
        (101, 249),
        (119, 185),
    ]
    assert len(keys) == 127
    tokens, targets = draw(Memorization())
    known = dict(zip(keys, values, strict=True))
    assert (tokens[:, 1::2] == 255).all()
    assert all(
        known[k] == v for k, v in zip(tokens[:, ::2].flat, targets[:, 1::2].flat, strict=True)
    )


def test_the_last_value_counts_when_keys_are_updated():
    task = ForgettingMQAR(vocab=64, length=32, pairs=5, updates=3, random_non_queries=False)
    for row, target in zip(*draw(task), strict=True):
        shown = row[: 2 * 8]
        last = dict(zip(shown[::2], shown[1::2], strict=True))
        first = dict(zip(shown[:10:2], shown[1:10:2], strict=True))
        asked = np.flatnonzero(target != IGNORED)
        assert sorted(row[asked]) == sorted(first)
        assert all(target[place] == last[row[place]] for place in asked)
        assert sum(first[key] != last[key] for key in first) == 3


def test_an_automaton_reads_its_own_strings():
    task = Automata(length=120, string=12)
    random = np.random.default_rng(3)
    tokens, allowed = task._walk(random, 50)
    step = task._automata(np.random.default_rng(3), 50)
    for row in range(50):
        state, lengths = 0, [0]
        for place, token in enumerate(tokens[row]):
            if token == task.vocab - 1:
                state, lengths = 0, [*lengths, 0]
                continue
            np.testing.assert_array_equal(allowed[row, place], step[row, state] >= 0)
            following = step[row, state, token]
            assert following not in (-1, state)
            state, lengths[-1] = following, lengths[-1] + 1
        assert all(1 <= length < 12 for length in lengths[:-1])


def test_an_automaton_has_few_edges_to_different_states():
    step = Automata()._automata(np.random.default_rng(0), 200)
    for state in step.reshape(-1, step.shape[-1]):
        targets = state[state >= 0].tolist()
        assert 1 <= len(targets) <= 3
        assert len(set(targets)) == len(targets)


def test_automata_are_judged_by_what_can_be_read_on():
    task = Automata(length=60)

    class Greedy:
        """Says the lowest symbol the automaton can read."""

        def predictions(self, tokens):
            from archdsl.search.tasks.base import HELD_OUT, random_stream

            whole, allowed = task._walk(random_stream(HELD_OUT, 0), 9)
            np.testing.assert_array_equal(whole[:, :-1], tokens)
            return allowed[:, 1:].argmax(2)

    assert task.evaluate(Greedy(), 9, 0) == {"accuracy": 1.0}


def test_macro_accuracy_counts_symbols_not_answers():
    targets = np.array([[1, 1, 1, 2, IGNORED]])
    predictions = np.array([[1, 1, 3, 2, 0]])
    # 1: two of three, 2: one of one, 3: answered and never asked for
    assert macro_accuracy(predictions, targets) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_examples_come_again_in_the_same_order():
    task = Compression(length=8, examples=40)
    np.testing.assert_array_equal(task.batch(10, 0, 1), task.batch(10, 0, 5))
    assert (task.batch(10, 0, 1)[0] != task.batch(10, 0, 2)[0]).any()
    assert len(task.batch(64, 0, 0)[0]) == 40


class LastSees(nn.Module):
    """Stands for a model: its features are what it is told."""

    def __init__(self, width):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(16, width))

    def features(self, tokens):
        x = torch.zeros(*tokens.shape, self.table.shape[1])
        x[:, -1, 0] = tokens[:, 0].float()
        return x


def test_compression_reads_the_last_position_alone():
    model = Decoded(LastSees(12), seed=0)
    tokens, targets = draw(Compression(length=8), 4)
    tokens, targets = torch.from_numpy(tokens), torch.from_numpy(targets)
    changed = tokens.clone()
    changed[:, 1:-1] = 0
    torch.testing.assert_close(model(tokens), model(changed))
    assert model(tokens).shape == (4, 8, 16)
    model.loss(tokens, targets).backward()
    assert all(weight.grad is not None for weight in model.decoder.parameters())
    again = Decoded(LastSees(12), seed=0)
    torch.testing.assert_close(model.decoder[1].weight, again.decoder[1].weight)


@pytest.mark.parametrize(
    ("task", "argument"),
    [
        (InContextRecall(length=7), "length"),
        (InContextRecall(noise=0.5), "noise_vocab"),
        (NoisyInContextRecall(vocab=18), "vocab"),
        (FuzzyInContextRecall(vocab=6), "vocab"),
        (FuzzyInContextRecall(length=12), "length"),
        (SelectiveCopying(length=20), "length"),
        (ForgettingMQAR(vocab=64, length=32, pairs=4, updates=5), "updates"),
        (ForgettingMQAR(vocab=64, length=32, pairs=8, updates=2), "updates"),
        (Automata(states=3), "states"),
        (Automata(vocab=4), "vocab"),
    ],
)
def test_what_does_not_fit_is_said(task, argument):
    with pytest.raises(Invalid) as caught:
        task.verify()
    assert caught.value.argument == argument
    assert "use" in caught.value.help
