from dataclasses import replace
from random import Random

import optuna
import pytest
from fakes import ACCURACY, FakeSpace
from runs import SAMPLERS, space_of

from archdsl.search.samplers.tpe import TPE
from archdsl.search.seeds import seed_of
from archdsl.search.space.distributions import distribution
from archdsl.search.space.sites import every, near
from archdsl.search.storage.records import ARCH, OUTCOME, SCORES, Record, rung_key
from archdsl.search.study.proposals import Proposer


def describe(arch):
    return {ARCH: {"key": arch.hash, "choices": arch.choices, "assignment": arch.assignment}}


def proposer(sampler="random", space=None, directions=("maximize",), stages=2, seed=0):
    return Proposer(
        space or FakeSpace(), SAMPLERS[sampler], seed, list(directions), stages,
        "hidden_covariance", describe, lambda arch: arch.hash,
    )  # fmt: skip


def finished(proposal, number, state="complete", value=0.5, directions=1, rungs=0, score=0.0):
    attributes = dict(proposal.attributes)
    attributes[SCORES] = {"values": {"hidden_covariance": score}, "seconds": 0.0}
    for rung in range(rungs):
        attributes[rung_key(rung)] = {
            "step": rung, "objectives": [value] * directions, "measures": {}, "curves": {},
            "seconds": 0.0,
        }  # fmt: skip
    if state != "complete":
        attributes[OUTCOME] = {"reason": "rank", "message": ""}
    values = (value,) * directions if state == "complete" else None
    return Record(
        number, number, state, values, attributes, proposal.params, proposal.distributions
    )


def search(made, trials, states=("complete",), directions=1):
    records = []
    for number in range(trials):
        proposal = made.propose(records)
        if proposal is None:
            break
        state = states[number % len(states)]
        records.append(finished(proposal, number, state, number / 10, directions))
    return records


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
def test_a_proposal_depends_on_seed_and_trials_alone(sampler, directions):
    states = ("complete", "pruned", "fail")
    whole = search(proposer(sampler, directions=directions), 14, states, len(directions))
    for known in (0, 5, 13):
        again = proposer(sampler, directions=directions).propose(whole[:known])
        assert dict(again.params) == dict(whole[known].params)
    other = search(proposer(sampler, directions=directions, seed=1), 14, states, len(directions))
    alike = [r.params for r in other] == [r.params for r in whole]
    assert alike == (sampler == "exhaustive")


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_nothing_is_proposed_twice_and_the_end_is_seen(sampler):
    records = search(proposer(sampler), 30)
    assert len(records) == FakeSpace().count() == 20
    assert len({record.key for record in records}) == 20


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_constraints_hold_before_anything_is_a_trial(sampler):
    space = FakeSpace(largest=200)
    feasible = [arch for arch in every(space) if space.feasible(arch)]
    records = search(proposer(sampler, space), 30)
    assert {r.key for r in records} == {arch.hash for arch in feasible}
    assert len(records) < 20
    rejected = sum(r.arch["proposal"]["effort"]["infeasible"] for r in records)
    assert rejected > 0 or sampler in ("exhaustive", "evolution", "gp"), "those look before"


def test_of_a_small_space_a_sampler_is_asked_once():
    space = FakeSpace()
    records = search(proposer("tpe", space), space.count())
    assert [record.arch["proposal"]["effort"]["asked"] for record in records] == [1] * 20


def test_a_sampler_that_proposes_what_was_refused_is_soon_left():
    class Large(FakeSpace):
        def count(self):
            return 10**4

    records = search(proposer("tpe", Large()), 20)
    assert max(record.arch["proposal"]["effort"]["asked"] for record in records) < 20


def test_what_is_near_shares_the_first_decisions():
    space = FakeSpace()
    start = {"model.width": 2, "model.memory": 2, "model.memory.layers": 1}
    archs = list(near(lambda choose: space.decide(choose), start, Random(0)))
    assert len({arch.hash for arch in archs}) == space.count()
    assert archs[0].assignment == start
    shared = [
        [arch.assignment.get(path) == index for path, index in start.items()] for arch in archs
    ]
    assert shared[1] == [True, True, False], "what was decided last changes first"
    assert [s[0] for s in shared] == [True] * 5 + [False] * 15


def test_a_large_space_is_not_walked_through():
    class Large(FakeSpace):
        def count(self):
            return 10**9

    records = search(proposer(space=Large()), 30)
    assert 15 <= len(records) <= 20


def test_every_architecture_is_walked_once():
    hashes = [arch.hash for arch in every(FakeSpace())]
    assert len(hashes) == len(set(hashes)) == 20


def test_ranges_are_ordered_and_choices_are_words():
    from fakes import MEMORY, WIDTH, FakeSite

    assert distribution(WIDTH).high == 3
    assert distribution(MEMORY).choices == ("gru", "linear", "rnn")
    alike = FakeSite("a", "choice", ("x", "x"))
    assert distribution(alike).choices == ("0: x", "1: x")


def test_how_far_a_trial_came_orders_it():
    made = proposer(stages=3)
    first = made.propose([])
    records = [
        finished(first, 0),
        finished(first, 1, "pruned", 0.9, rungs=2),
        finished(first, 2, "pruned", 0.1, rungs=2),
        finished(first, 3, "pruned", 0.99, rungs=1),
        finished(first, 4, "pruned", score=5.0),
        finished(first, 5, "pruned", score=-5.0),
        finished(first, 6, "fail"),
    ]
    shortfalls = made._shortfalls(records)
    order = [shortfalls[number] for number in range(7)]
    assert order == sorted(order)
    assert len(set(order)) == 7
    assert order[0] == 0


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
def test_samplers_learn_from_trials_that_were_cut(sampler, directions):
    """Wide ones are cut early, narrow ones go on: proposals get narrow without one complete trial."""

    class Wide(FakeSpace):
        """So many that nothing is proposed twice."""

    made = proposer(sampler, Wide(), directions)
    made._key = lambda arch: str(next(numbers))
    numbers = iter(range(10**6))
    records, widths = [], []
    for number in range(60):
        proposal = made.propose(records)
        width = proposal.arch.width
        widths.append(width)
        record = finished(proposal, number, "pruned", 0.1, len(directions), rungs=int(width <= 4),
                          score=-float(width))  # fmt: skip
        records.append(record)
    assert sum(widths[40:]) / 20 < sum(widths[:10]) / 10


def test_running_trials_of_others_are_seen_and_not_repeated():
    made = proposer("tpe")
    records = search(made, 6)
    running = replace(records[5], state="running", values=None)
    proposal = made.propose([*records[:5], running])
    assert proposal.attributes[ARCH]["key"] not in {record.key for record in records}


def test_an_architecture_that_is_met_again_is_not_made_again():
    from archdsl.search.space.walks import Walks

    space = FakeSpace()
    walks = Walks(space)
    for arch in every(space):
        asked = []

        def choose(site, arch=arch, asked=asked):
            asked.append(site.path)
            return arch.assignment[site.path]

        found = walks.arch(choose)
        assert found == arch
        assert asked == list(arch.assignment)
        assert walks.arch(choose) is found
        assert asked == 2 * list(arch.assignment)


def test_genetic_search_makes_generations():
    made = proposer("nsga2")
    records = search(made, 10)
    generations = [r.arch["proposal"]["carried"].get("NSGAIISampler:generation") for r in records]
    assert generations[:3] == [0, 0, 0]
    assert max(g for g in generations if g is not None) >= 2


def test_seeds_depend_on_every_part():
    assert seed_of(1, 2) == seed_of(1, 2)
    assert len({seed_of(1, 2), seed_of(2, 1), seed_of(12), seed_of("1", 2, 3)}) == 4


def test_choices_that_do_not_fit_together_count_as_infeasible():
    from archdsl.diagnostics import ArchError, Diagnostic

    class Misfit(FakeSpace):
        def decide(self, choose):
            arch = super().decide(choose)
            if arch.choices["model.memory"] == "rnn":
                raise ArchError(Diagnostic("misfit", "rnn does not fit"))
            return arch

    records = search(proposer(space=Misfit()), 30)
    assert len(records) == 12
    assert space_of().objectives == (ACCURACY,)


@pytest.mark.parametrize("trials", [0, 4, 30])
def test_tpe_draws_what_optuna_draws_of_the_same_seed(trials):
    def asked(sampler):
        study = optuna.create_study(sampler=sampler)
        for number in range(trials):
            study.add_trial(optuna.trial.create_trial(
                value=number % 7, params={"a": number % 3},
                distributions={"a": optuna.distributions.IntDistribution(0, 4)},
            ))  # fmt: skip
        trial = study.ask()
        return [trial.suggest_int("a", 0, 4), *(trial.suggest_int(name, 0, 99) for name in "bc")]

    settings = {"n_startup_trials": 10, "n_ei_candidates": 24, "multivariate": True, "group": True}
    for seed in range(3):
        theirs = optuna.samplers.TPESampler(seed=seed, **settings)
        assert asked(TPE().make(seed, FakeSpace())) == asked(theirs)
