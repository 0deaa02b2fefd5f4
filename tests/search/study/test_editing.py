"""A study outlives its spec's edits; known results and known architectures are used."""

import random
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from runs import EVERYONE, facts, run, space_of

import archdsl
from archdsl.diagnostics import ArchError
from archdsl.search import run as search
from archdsl.search.storage.records import Proposal
from archdsl.search.storage.store import open_store
from archdsl.search.study.placing import enqueued, found
from archdsl.search.study.study import key_of

SECTION = {**EVERYONE, "rungs": (2,)}

TINY = """
model { embed(dim = 8)  residual { gla(heads = 1 | 2) }  lm_head }
task recall = mqar(vocab = 16, length = 8, pairs = 2)
train { batch = 2  evaluate = 2 }
search { trials = 2  rungs = [1]  promote = 1 }
"""


def keys(result):
    return {record.key for record in result.records}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Six trials of a space, to be edited."""
    return run(tmp_path_factory.mktemp("before"), space_of(trials=6, section=SECTION))


def edited(before, tmp_path, **changes):
    (tmp_path / "study.journal").write_bytes((before.folder / "study.journal").read_bytes())
    trials = changes.pop("trials", 8)
    return run(tmp_path, space_of(trials=trials, section=SECTION, text_hash="edited", **changes))


def test_an_edit_that_leaves_the_space_alone_uses_every_trial(before, tmp_path):
    after = edited(before, tmp_path)
    assert len(after.records) == 8
    assert facts(after.records)[:6] == facts(before.records)


def test_what_does_not_lie_in_the_edited_space_is_kept_and_not_used(before, tmp_path):
    widths = ("4", "8", "20")
    after = edited(before, tmp_path, widths=widths)
    kept = [r for r in before.records if r.arch["choices"]["model.width"] in widths]
    assert 0 < len(kept) < 6
    assert len(after.records) == 8
    assert {r.key for r in kept} < keys(after)
    assert all(r.arch["choices"]["model.width"] in widths for r in [*after.records, *after.front])
    assert max(r.number for r in after.records) == 6 + 8 - len(kept) - 1


def test_trials_are_found_by_the_words_of_their_choices(before, tmp_path):
    widths = ("2", "4", "8", "12", "16")
    after = edited(before, tmp_path, widths=widths, trials=6)
    assert len(after.records) == 6
    for old, new in zip(before.records, after.records, strict=True):
        assert old.values == new.values
        assert new.params["model.width"] == old.params["model.width"] + 1


def test_back_to_the_first_edition_everything_is_there_again(before, tmp_path):
    edited(before, tmp_path, widths=("4", "8"), trials=6)
    again = run(tmp_path, space_of(trials=6, section=SECTION))
    assert facts(again.records)[:6] == facts(before.records)


def test_other_rungs_are_another_ladder(before, tmp_path):
    section = {**EVERYONE, "rungs": (3,)}
    (tmp_path / "study.journal").write_bytes((before.folder / "study.journal").read_bytes())
    after = run(tmp_path, space_of(trials=2, section=section, text_hash="edited"))
    assert [record.rungs[-1].step for record in after.records] == [3, 3]


def test_an_equal_architecture_is_not_trained_again_in_another_study(before, tmp_path):
    journal = tmp_path / "study.journal"
    journal.write_bytes((before.folder / "study.journal").read_bytes())
    space = space_of(trials=6, section=SECTION, trouble={})
    after = run(tmp_path, space, study="other", storage=str(journal))
    assert facts(after.records) == facts(before.records)
    for record in after.records:
        assert record.attributes["rung:0"]["from"] == ["fake", record.number]
        assert record.seconds == 0


def test_a_trial_that_breaks_a_new_constraint_is_not_used(before, tmp_path):
    largest = sorted(record.costs["params"] for record in before.records)[2]
    after = edited(before, tmp_path, largest=largest)
    assert all(record.costs["params"] <= largest for record in [*after.records, *after.front])
    small = {r.key for r in before.records if r.costs["params"] <= largest}
    assert small < keys(after)


def test_a_trial_is_judged_by_the_soft_constraints_of_the_present_spec(tmp_path):
    """What was not measured for a new one, or was cut by one that is no more, is tried anew."""
    spec = tmp_path / "soft.arch"
    trials = []
    for bound in ("", "require latency(length = 4, mode = decode) <= 1e-9", ""):
        spec.write_text(TINY + bound)
        trials.append(search(spec, out=tmp_path, quiet=True).records)
    assert [r.reason for r in trials[0]] == ["", ""]
    assert [r.reason for r in trials[1]] == ["constraint"] * 2
    assert [r.number for r in trials[1]] == [2, 3]
    assert [r.number for r in trials[2]] == [0, 1]


def test_what_was_not_trained_is_scored_again_where_another_score_decides(tmp_path):
    from archdsl.blocks.registry import find
    from archdsl.search.storage.records import OUTCOME, SCORES

    section = {"rungs": (2,), "promote": Fraction(1, 2)}
    first = run(tmp_path, space_of(trials=4, section=section))
    cut = next(record for record in first.records if record.reason == "rank")
    store = open_store(None, "fake", tmp_path)
    store.id = store.storage.get_study_id_from_name("fake")
    halfway = {key: cut.attributes[key] for key in cut.attributes if key not in {OUTCOME, "owner"}}
    proposal = Proposal(first.records[0].arch, cut.params, cut.distributions, halfway)
    parked = store.create(proposal)
    store.close()
    synflow = {**section, "rank": find("metric", "synflow")()}
    after = run(tmp_path, space_of(trials=5, section=synflow, text_hash="edited"))
    assert "synflow" in after.records[parked.number].attributes[SCORES]["values"]
    assert (tmp_path / "report.html").exists()


def test_what_an_edit_ended_is_tried_anew_when_the_edit_is_taken_back(tmp_path):
    space, halfway = space_of(trials=1, section=SECTION), {"outcome", "owner", "rung:0"}
    (first,) = run(tmp_path, space).records
    store = open_store(None, "fake", tmp_path)
    store.id = store.storage.get_study_id_from_name("fake")
    begun = {key: each for key, each in first.attributes.items() if key not in halfway}
    other = next(a for a in map(space.sample, range(99)) if a.cost.params != first.costs["params"])
    about = {**first.arch, "key": key_of(other), "hash": other.hash, "text": other.text}
    about |= {"assignment": other.assignment, "choices": other.choices}
    store.create(Proposal(other, first.params, first.distributions, {**begun, "arch": about}))
    store.close()
    without = tuple(width for width in ("4", "8", "12", "16") if width != str(other.width))
    run(tmp_path, space_of(trials=1, section=SECTION, text_hash="edited", widths=without))
    after = run(tmp_path, space_of(trials=20, section=SECTION))
    (again,) = (record for record in after.records if record.key == key_of(other))
    assert again.number > 1
    assert again.state == "complete"


def test_the_best_of_an_edited_space_has_a_checkpoint(tmp_path):
    """Its weights were not kept as long as something beat it."""
    first = run(tmp_path, space_of(trials=8, section=SECTION))
    gone = first.best.arch["choices"]["model.width"]
    left = tuple(width for width in ("4", "8", "12", "16") if width != gone)
    kept = [r for r in first.records if r.arch["choices"]["model.width"] != gone]
    after = run(
        tmp_path, space_of(trials=len(kept), section=SECTION, text_hash="edited", widths=left)
    )
    assert after.best.number in {record.number for record in kept}
    assert (tmp_path / "best.safetensors").exists()
    assert f"checkpoint  {tmp_path / 'best.safetensors'}" in after.farewell()


# --- files ----------------------------------------------------------------------------------------

SPEC = """
let width = 16 | 24 | 32
model {
    embed(dim = width)
    residual { rms_norm  gla(heads = 2 | 4) }
    residual { rms_norm  swiglu(expand = 1 | 2 | 3) }
    residual { rms_norm  gla(heads = 1 | 2) | hgrn2(heads = 2 | 4) }
    residual { rms_norm  swiglu(expand = each(1 | 2 | 4)) }
    rms_norm
    lm_head
}
require params <= 14K
task recall = mqar(vocab = 32, length = 16, pairs = 4)
search { maximize recall.accuracy }
""".replace("each(1 | 2 | 4)", "1 | 2 | 4")


@pytest.fixture(scope="module")
def space():
    return archdsl.loads(SPEC)


def test_a_closed_file_is_found_by_walking_towards_it(space):
    from archdsl.search.study import placing

    draw = random.Random(0)
    for _ in range(6):
        arch = space.draw(draw.getrandbits(30))
        walked = placing._walked(
            space, arch.text, space.sample(0), lambda a, w=arch: a.hash == w.hash
        )
        assert walked is not None
        assert walked.hash == arch.hash
    assert found(space, "", {}, lambda arch: False) is None


def test_files_are_enqueued_or_refused_in_words(space, tmp_path):
    def file(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    small = space.sample(5)
    [(name, arch)] = enqueued(space, [file("known.arch", small.text)])
    assert (name, arch.hash) == ("known.arch", small.hash)
    other = re.sub(r"\bgla\(", "retnet(", small.text)
    with pytest.raises(ArchError, match=r"`strange\.arch` was not found") as caught:
        enqueued(space, [file("strange.arch", other)])
    assert caught.value.diagnostics[0].id == "not-enqueued"
    with pytest.raises(ArchError, match="describes 216 architectures"):
        enqueued(space, [file("open.arch", SPEC)])
    large = next(a for a in map(space.draw, range(99)) if not a.feasible)
    text = "\n".join(line for line in large.text.splitlines() if "require" not in line)
    with pytest.raises(ArchError, match="constraints"):
        enqueued(space, [file("large.arch", text)])


def test_what_is_enqueued_comes_first(tmp_path, monkeypatch):
    from archdsl.search import main

    space = space_of(trials=3, section=SECTION)
    known = replace(space.sample(1))
    monkeypatch.setattr(main, "enqueued", lambda space, paths: [(p.name, known) for p in paths])
    result = run(tmp_path, space, enqueue=[Path("known.arch")])
    assert result.records[0].arch["hash"] == known.hash
    assert result.records[0].arch["proposal"]["enqueued"] == "known.arch"
    assert len(keys(result)) == 3
