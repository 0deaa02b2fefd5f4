"""Drawing, changing and storing architectures of a space."""

from __future__ import annotations

import copy
import pickle
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from archdsl.compiler.spaces.loading import load, loads
from archdsl.compiler.spaces.space import Space
from archdsl.compiler.terms.term import Site
from archdsl.diagnostics import ArchError

TEXT = """
let width  = 32 | 64
let memory = gla | retnet | hgrn2
let expand = 2 | 4

def block(mixer) {
    residual { rms_norm  mixer }
    residual { rms_norm  swiglu(expand = expand) }
}

model {
    embed(dim = width)
    stack(depth = 4, ratio = 1:1 | 3:1) {
        linear: block(memory(heads = 2 | 4))
        full:   block(attention(heads = each(2 | 4), position = rope))
    }
    rms_norm
    lm_head(tied = true)
}

task recall = mqar(vocab = 64, length = 16, pairs = 2 | 4)
train { learning_rate = 1e-3 | 3e-3 }
search { maximize recall.accuracy  minimize params }
"""


@pytest.fixture(scope="module")
def space() -> Space:
    return loads(TEXT)


@pytest.fixture(scope="module")
def tight() -> Space:
    return loads(TEXT + "require params <= 60K\nrequire params >= 20K\n")


def test_the_count_is_exact(space: Space) -> None:
    # width, memory, heads, expand, pairs and learning rate, times the copies of full attention
    assert space.count() == 2 * 3 * 2 * 2 * 2 * 2 * (2**2 + 2**1)


def test_what_was_made_before_asks_the_same_and_is_the_same() -> None:
    used = loads(TEXT)
    firsts = {walked(used, seed) for seed in range(60)}
    assert {walked(used, seed) for seed in range(60)} == firsts
    assert {walked(loads(TEXT), seed) for seed in range(8)} <= firsts


def walked(space: Space, seed: int) -> tuple[tuple[str, ...], str, str]:
    """The choices a random walk is asked for, in order, and what it comes to."""
    draw, asked = random.Random(seed), list[str]()

    def choose(site: Site) -> int:
        asked.append(site.path)
        return draw.randrange(site.size)

    arch = space.decide(choose)
    return tuple(asked), arch.text, arch.hash


def test_paths_are_readable(space: Space) -> None:
    assert [site.path for site in space.sites()] == [
        "width",
        "model.stack.ratio",
        "memory",
        "model.stack.linear.block.mixer.memory.heads",
        "expand",
        "model.stack.full.block.mixer.attention.heads[1]",
        "model.stack.full.block.mixer.attention.heads[3]",
        "recall.mqar.pairs",
        "train.learning_rate",
    ]


def test_draws_are_uniform(space: Space) -> None:
    drawn = [space.draw(seed) for seed in range(1500)]
    ratios = Counter(arch.choices["model.stack.ratio"] for arch in drawn)
    assert abs(ratios["1:1"] - 1000) < 120  # it has two thirds of the architectures


def test_a_draw_depends_on_the_seed_alone(space: Space) -> None:
    assert [space.sample(s) for s in range(20)] == [loads(TEXT).sample(s) for s in range(20)]


def test_sampling_keeps_requirements(tight: Space) -> None:
    assert all(20_000 <= tight.sample(seed).cost.params <= 60_000 for seed in range(30))
    assert all(tight.violations(tight.sample(seed)) == () for seed in range(5))


def test_sampling_an_unlikely_corner_is_uniform() -> None:
    text = "let a = 1 .. 300\nlet b = 0 | 1\nmodel { embed(dim = a + b, vocab = 1) }\n"
    space = loads(text + "require params <= 2")
    drawn = Counter(frozenset(space.sample(seed).assignment.items()) for seed in range(90))
    assert len(drawn) == 3
    assert min(drawn.values()) > 12


def test_violations_point_at_the_requirement(space: Space, tight: Space) -> None:
    broken = next(arch for arch in tight.enumerate() if not arch.feasible)
    (diagnostic, *_) = tight.violations(broken)
    assert diagnostic.id == "requirement-broken"
    assert diagnostic.span is not None
    assert diagnostic.span.text.startswith("require params")


def test_an_assignment_makes_its_architecture_again(space: Space) -> None:
    for seed in range(20):
        arch = space.sample(seed)
        assert space.arch(arch.assignment) == arch


def test_wrong_assignments_are_refused(space: Space) -> None:
    right = space.sample(0).assignment
    wrong = [
        {k: v for k, v in right.items() if k != "memory"},
        {**right, "memory": 3},
        {**right, "memory": True},
        {**right, "memori": 0},
        {**{k: v for k, v in right.items() if "heads[" not in k}, "model.stack.ratio": 5},
    ]
    for assignment in wrong:
        with pytest.raises(ArchError) as caught:
            space.arch(assignment)
        assert {d.id for d in caught.value.diagnostics} == {"wrong-assignment"}


def test_a_mutation_is_another_one_nearby(tight: Space) -> None:
    for seed in range(40):
        arch = tight.sample(seed)
        other = tight.mutate(arch, seed)
        assert other != arch
        assert other.feasible
        shared = arch.assignment.keys() & other.assignment.keys()
        assert sum(arch.assignment[path] != other.assignment[path] for path in shared) == 1


def test_a_mutation_of_the_only_feasible_one_is_itself() -> None:
    space = loads("model { embed(dim = 1 | 2, vocab = 1) }\nrequire params <= 1")
    only = space.sample(0)
    assert space.mutate(only, 1) == only


def test_a_mutation_finds_the_only_other_one() -> None:
    text = "let a = 1 .. 40\nlet b = 1 .. 40\nmodel { embed(dim = a * b, vocab = 1) }\n"
    space = loads(text + "require params == 39")
    found = {frozenset(space.mutate(space.sample(s), s).assignment.items()) for s in range(12)}
    assert len(found) > 1


def test_a_child_has_both_parents_choices(tight: Space) -> None:
    for seed in range(20):
        a, b = tight.sample(seed), tight.sample(seed + 100)
        child = tight.crossover(a, b, seed)
        assert child.feasible
        for path, index in child.assignment.items():
            known = {p.assignment[path] for p in (a, b) if path in p.assignment}
            assert not known or index in known


def test_spaces_and_architectures_travel(space: Space, tmp_path: Path) -> None:
    arch = space.sample(3)
    again = pickle.loads(pickle.dumps(arch))
    assert again == arch
    assert again.hash == arch.hash
    assert copy.deepcopy(arch) is arch
    assert Space.from_json(space.to_json()).sample(3) == arch


def test_used_files_travel(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "blocks.arch").write_text("let n = 2 | 4\ndef wide(x) = mlp(expand = x)")
    main = tmp_path / "main.arch"
    main.write_text(
        'use "parts/blocks.arch" as b\nlet size = 8\n'
        "model { embed(dim = size, vocab = 4)  b.wide(b.n)  b.wide(b.n) }"
    )
    space = load(main, bindings={"size": 16})
    stored = space.to_json()
    (tmp_path / "parts" / "blocks.arch").unlink()
    again = Space.from_json(stored)
    assert again.count() == space.count() == 2
    assert again.text_hash == space.text_hash
    assert again.sample(0).root[0].component.dim == 16  # type: ignore[attr-defined]


def test_the_text_hash_is_of_what_is_said() -> None:
    plain = "let a = 1 | 2\nmodel { embed(dim = a, vocab = 4096) }"
    same = "# a comment\nlet a=1|2\n\nmodel{embed(dim=a,vocab=4.096K)}"
    other = plain.replace("1 | 2", "1 | 3")
    assert loads(plain).text_hash == loads(same).text_hash != loads(other).text_hash


def test_bindings_take_the_place_of_lets(tmp_path: Path) -> None:
    path = tmp_path / "a.arch"
    path.write_text("let a = 1 | 2\nmodel { embed(dim = 8 * a, vocab = 4) }")
    assert load(path).count() == 2
    assert load(path, bindings={"a": Fraction(1, 2)}).count() == 1
    with pytest.raises(ArchError) as caught:
        load(path, bindings={"b": 1})
    assert caught.value.diagnostics[0].id == "unknown-binding"


def test_a_library_has_nothing_to_draw() -> None:
    space = loads("def block(mixer) = residual { mixer }")
    for ask in (space.count, lambda: space.sample(0)):
        with pytest.raises(ArchError) as caught:
            ask()
        assert caught.value.diagnostics[0].id == "missing-model"


def test_nothing_feasible_says_why() -> None:
    text = TEXT.replace("let width  = 32 | 64", "let width = 512") + "require params <= 1M"
    with pytest.raises(ArchError) as caught:
        loads(text).sample(0)
    message = caught.value.diagnostics[0].message
    assert message.startswith("0 of 288 architectures have params <= 1M; the smallest has ")
    assert message.endswith("because width = 512, line 2")


def test_settings_and_objectives(space: Space) -> None:
    arch = space.sample(0)
    assert arch.tasks["recall"].name == "mqar"
    assert arch.train.learning_rate in (Fraction(1, 1000), Fraction(3, 1000))
    assert [each.text for each in space.objectives] == ["recall.accuracy", "params"]
    accuracy, size = space.objectives
    assert accuracy.value(arch.cost, {"recall.accuracy": 0.5}) == 0.5
    assert size.value(arch.cost, {}) == arch.cost.params
    assert [str(part) for part in accuracy.needs] == ["recall.accuracy"]


def test_shared_choices_with_shared_choices_inside_are_counted() -> None:
    lets = "\n".join(f"let a{i} = swiglu | residual {{ c{i} }}" for i in range(24))
    inner = "\n".join(f"let c{i} = mlp | swiglu" for i in range(24))
    uses = "\n".join(f"a{i}  a{(i * 7 + 3) % 24}  c{(i * 5 + 1) % 24}" for i in range(24))
    text = f"{lets}\n{inner}\nmodel {{ embed(dim = 8, vocab = 4)  {uses}  {uses} }}"
    assert loads(text).count() == 4**24


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    for number in range(102):
        (tmp_path / f"f{number}.arch").write_text(f'use "f{number + 1}.arch" as n\n')
    with pytest.raises(ArchError) as caught:
        load(tmp_path / "f0.arch")
    assert {d.id for d in caught.value.diagnostics} == {"too-many-files"}


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "outside.arch").write_text("let a = 1")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link.arch").symlink_to(tmp_path / "outside.arch")
    (tmp_path / "inside" / "main.arch").write_text('use "link.arch" as l\n')
    with pytest.raises(ArchError) as caught:
        load(tmp_path / "inside" / "main.arch")
    assert caught.value.diagnostics[0].id == "use-outside"
