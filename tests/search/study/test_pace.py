"""The time left, held against searches whose end is known."""

from dataclasses import replace
from fractions import Fraction
from random import Random

import pytest

from archdsl.search.storage.records import Record
from archdsl.search.study.halving import at_rung, by_score
from archdsl.search.study.pace import Course, Pace

RUNGS = (200, 400)

RECORDED = [
    (2.84, 1.007, 0.16, 0.14, 0.25), (3.55, 0.114, 0.58), (4.22, 0.018, 0.32, 0.33),
    (4.26, 0.025), (5.68, 0.02, 0.36, 0.37, 0.67), (5.7, 0.012), (6.07, 0.011, 0.17, 0.18),
    (6.1, 0.02), (6.11, 0.01), (6.14, 0.023), (6.17, 0.027), (6.2, 0.023),
    (7.52, 0.017, 0.35, 0.34, 0.6), (7.55, 0.02), (7.57, 0.02), (8.11, 0.02, 0.52), (8.13, 0.013),
    (8.15, 0.015), (8.17, 0.014), (8.2, 0.021), (8.21, 0.008), (8.23, 0.011), (8.25, 0.012),
    (8.78, 0.022, 0.51), (8.81, 0.02), (8.83, 0.013), (9.25, 0.016, 0.2, 0.19), (9.26, 0.01),
    (10.75, 0.016, 0.39, 0.37, 0.7), (10.78, 0.023), (10.81, 0.027), (10.85, 0.028),
    (10.87, 0.019), (11.4, 0.014, 0.25, 0.25), (11.42, 0.018), (11.46, 0.027), (11.48, 0.011),
    (11.77, 0.017, 0.27), (12.25, 0.019, 0.46), (12.3, 0.031),
]  # fmt: skip
"""A search of 40 trials, ``promote = 1/4``, rungs of 25, 50 and 100 steps: when each trial ended, and the
seconds of its score and of the rungs it came to."""


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def trial(number, state, score=None, rungs=(), quality=0.5, results=(0.5, 0.5, 0.5)):
    """A trial with the seconds that its score and its rungs took, and what they were."""
    attributes = {"arch": {}, "outcome": {"reason": "", "message": ""}}
    if score is not None:
        attributes["scores"] = {"values": {"rank": quality}, "seconds": score}
    for rung, seconds in enumerate(rungs):
        attributes[f"rung:{rung}"] = {
            "step": 100 * (rung + 1), "objectives": [results[rung]], "measures": {}, "curves": {},
            "seconds": seconds,
        }  # fmt: skip
    values = (results[-1],) if state == "complete" else None
    return Record(number, number, state, values, attributes)


def estimates(course, trials):
    """For each end of a trial: what is estimated to be left, and what was.

    Args:
        course: the stages.
        trials: each record, with the second at which it ended.
    """
    clock = Clock()
    pace, began, end, found = Pace(course, (), clock), clock.now, trials[-1][1], []
    for count, (_, ended) in enumerate(trials, 1):
        clock.now = began + ended
        found.append((pace.left([record for record, _ in trials[:count]]), end - ended))
    return found


def simulated(course, seed, ahead=0.0, beside=0.1):
    """A search in imagined time: stages decide as in a study, scores and results are drawn.

    Args:
        course: the stages.
        seed: of everything drawn.
        ahead: how much a trial is better than the one before, as where a sampler learns.
        beside: seconds a trial takes beside scoring and training.
    """
    draw, now, done = Random(seed), 5.0, []
    for number in range(course.trials):
        quality, early, final = (draw.random() + ahead * number for _ in range(3))
        drawn = quality, (early, (early + final) / 2)
        speed, rungs = draw.uniform(0.05, 0.15), []
        record = trial(number, "running", 0.5, (), *drawn)
        known = [each for each, _ in done]
        going = course.promote is None or by_score(record, known, "rank", course.promote) == "on"
        for rung, steps in enumerate(course.steps):
            if going:
                rungs.append(speed * steps)
                record = trial(number, "running", 0.5, rungs, *drawn)
                last = rung == len(course.rungs) - 1
                share = (
                    Fraction(1) if last else Fraction(course.rungs[rung], course.rungs[rung + 1])
                )
                going = at_rung(record, known, rung, 1, share, ["maximize"]) == "on"
        now += 0.5 + sum(rungs) + beside
        done.append((replace(record, state="complete" if going else "pruned"), now))
    return done


def test_the_time_left_of_a_recorded_search():
    """Shares of what was spent so far had eight seconds left come out as sixty to a hundred."""
    course = Course(len(RECORDED), (25, 50, 100), Fraction(1, 4))
    trials = [
        (trial(number, "complete" if len(rungs) == 3 else "pruned", score, rungs), ended)
        for number, (ended, score, *rungs) in enumerate(RECORDED)
    ]
    (first, truth), *rest = estimates(course, trials)
    assert 0.3 < first / truth < 1.5
    for left, truth in rest[:-12]:
        assert 0.7 < left / truth < 1.4


@pytest.mark.parametrize("promote", [None, Fraction(1, 2), Fraction(1, 4), Fraction(1, 8)])
def test_the_time_left_is_neither_too_high_nor_too_low_from_the_first_trial_on(promote):
    course = Course(80, RUNGS, promote)
    found = [estimates(course, simulated(course, seed)) for seed in range(12)]
    for ended in (0, 1, 3, 7, 15, 31, 47):
        shares = [each[ended][0] / each[ended][1] for each in found]
        assert 0.75 < sum(shares) / len(shares) < 1.3


def test_a_first_trial_that_goes_through_all_stages_does_not_stand_for_the_others():
    course = Course(100, RUNGS, Fraction(1, 8))
    first = trial(0, "complete", 1.0, (20.0, 20.0))
    clock = Clock()
    pace = Pace(course, (), clock)
    clock.now += 50.0
    # Of 99 others about an eighth is trained, of these about half behind the first rung; few go first.
    assert pace.left([first]) == pytest.approx(99 + 99 / 8 * (20 + 10), rel=0.25)


def test_a_sampler_that_keeps_finding_better_ones_is_noticed():
    course = Course(120, RUNGS, Fraction(1, 4))
    found = estimates(course, simulated(course, 0, ahead=1.0))
    left, truth = found[40]
    assert left == pytest.approx(truth, rel=0.3)


def test_what_trials_take_beside_training_counts():
    course = Course(100, RUNGS, Fraction(1, 8))
    left, truth = estimates(course, simulated(course, 1, beside=5.0))[30]
    assert left == pytest.approx(truth, rel=0.3)


def test_other_processes_do_their_share():
    """Four processes have trained a trial each, in the time of one."""
    course, clock = Course(44, RUNGS), Clock()
    pace = Pace(course, (), clock)
    clock.now += 20.0
    four = [trial(number, "complete", 0.0, (10.0, 10.0)) for number in range(4)]
    assert pace.left(four) == pytest.approx(40 / 4 * (10 + 10 / 2), rel=0.3)


def test_a_search_that_goes_on_knows_what_stages_cost_once_it_has_done_something():
    course, clock = Course(3, RUNGS), Clock()
    before = [trial(0, "complete", 1.0, (10.0, 10.0))]
    pace = Pace(course, before, clock)
    assert pace.left(before) is None
    clock.now += 11.0
    found = pace.left([*before, trial(1, "pruned", 1.0, (10.0,))])
    assert found == pytest.approx(1 + 10 + 10 * 2 / 3, rel=0.2)


def test_nothing_is_left_of_a_search_that_has_ended():
    course = Course(12, RUNGS, Fraction(1, 2))
    assert estimates(course, simulated(course, 0))[-1][0] == 0
