"""How many architectures a space has, exactly, and exact uniform draws from it.

Each term gives a polynomial: a sum of monomials, each a set of decisions with the number of ways to
make the decisions below that are already summed over. A decision is *(variable, alternative)*, and
:data:`ALL` stands for "whichever, nothing below depends on it". Parts that are used together multiply,
and two monomials that decide one variable differently vanish; so what is shared counts once.

A variable is summed over at the lowest term through which every use of it passes (its dominator). A
term that is used in several places, and below which something was summed over, becomes a variable
itself: its uses have to agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, reduce
from math import prod

from archdsl.compiler.terms.explore import Layout
from archdsl.compiler.terms.term import Choice, Copies, LayerTerm, Points, Site, Term

ALL = -1
"""Every alternative: the variable is decided, and nothing here depends on how."""

MOST_WORK = 400_000
"""How much multiplying a space may take, in pairs of small monomials."""

Variable = Site | Term
Monomial = frozenset[tuple[int, int]]
"""Decisions: the number of a variable, and the alternative."""
Polynomial = dict[Monomial, int]
Pairs = tuple[list[tuple[Monomial, Monomial]], list[int]]

ONE: Monomial = frozenset()


class TooEntangled(Exception):
    """So many choices depend on each other that the space cannot be counted."""


class Draw:
    """Collects one assignment while it is drawn."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.assignment: dict[str, int] = {}
        self.copies: Copies = ()

    def pick(self, weights: Sequence[int]) -> int:
        """An index with a probability proportional to its weight, exactly."""
        ticket = self.rng.randrange(sum(weights))
        for index, weight in enumerate(weights):
            ticket -= weight
            if ticket < 0:
                return index
        raise AssertionError("no weight is left")


class Factor:
    """A polynomial and how to draw from it; the base is the polynomial 1."""

    lossy = False
    """Whether anything below is summed over."""

    @cached_property
    def polynomial(self) -> Polynomial:
        """Its monomials."""
        return {ONE: 1}

    @cached_property
    def decided(self) -> frozenset[int]:
        """The variables that some monomial decides."""
        return frozenset(number for monomial in self.polynomial for number, _ in monomial)

    def draw(self, target: Monomial, out: Draw) -> None:
        """Draw what was summed over below, where the decisions of ``target`` are made."""


UNIT = Factor()


class Literal(Factor):
    """A variable decided."""

    def __init__(self, variable: int, alternative: int) -> None:
        self.monomial: Monomial = frozenset({(variable, alternative)})

    @cached_property
    def polynomial(self) -> Polynomial:
        """The one decision."""
        return {self.monomial: 1}


class Sum(Factor):
    """One of several."""

    def __init__(self, parts: Sequence[Factor]) -> None:
        self.parts = parts
        self.lossy = any(part.lossy for part in parts)

    @cached_property
    def polynomial(self) -> Polynomial:
        """Like monomials added."""
        total: Polynomial = {}
        for part in self.parts:
            for monomial, weight in part.polynomial.items():
                total[monomial] = total.get(monomial, 0) + weight
        return total

    def draw(self, target: Monomial, out: Draw) -> None:
        """A part by its share."""
        weights = [part.polynomial.get(target, 0) for part in self.parts]
        self.parts[out.pick(weights)].draw(target, out)


class Work:
    """What multiplying has cost so far."""

    def __init__(self) -> None:
        self.left = MOST_WORK

    def spend(self, left: Polynomial, right: Polynomial) -> None:
        """Count one product.

        Raises:
            TooEntangled: it is too much.
        """
        size = 1 + (len(next(iter(left), ONE)) + len(next(iter(right), ONE))) // 8
        self.left -= len(left) * len(right) * size
        if self.left < 0:
            raise TooEntangled


class Product(Factor):
    """Both."""

    def __init__(self, left: Factor, right: Factor, work: Work) -> None:
        self.left, self.right, self.work = left, right, work
        self.lossy = left.lossy or right.lossy

    @cached_property
    def polynomial(self) -> Polynomial:
        """Every pair that does not contradict itself."""
        total: Polynomial = {}
        self.work.spend(self.left.polynomial, self.right.polynomial)
        for both, _, _, weight in self._matches():
            total[both] = total.get(both, 0) + weight
        return total

    def _matches(self) -> Iterator[tuple[Monomial, Monomial, Monomial, int]]:
        """What two monomials decide together, the two, and their weight."""
        for a, p in self.left.polynomial.items():
            for b, w in self.right.polynomial.items():
                both = joined(a, b)
                if both is not None:
                    yield both, a, b, p * w

    def draw(self, target: Monomial, out: Draw) -> None:
        """A pair by its share."""
        pairs, weights = self.pairs[target]
        a, b = pairs[out.pick(weights)]
        self.left.draw(a, out)
        self.right.draw(b, out)

    @cached_property
    def pairs(self) -> dict[Monomial, Pairs]:
        """The pairs that make each monomial, and their weights."""
        found: dict[Monomial, Pairs] = {}
        for both, a, b, weight in self._matches():
            pairs, weights = found.setdefault(both, ([], []))
            pairs.append((a, b))
            weights.append(weight)
        return found


class Power(Factor):
    """A factor once for each copy; its draws are the copies' own, its decisions are shared."""

    def __init__(self, base: Factor, term: LayerTerm, visits: Sequence[int], work: Work) -> None:
        self.base, self.term, self.visits, self.work = base, term, visits, work
        self.lossy = base.lossy

    @cached_property
    def polynomial(self) -> Polynomial:
        """Halves multiplied."""
        return self.base.polynomial if len(self.visits) == 1 else self.whole.polynomial

    @cached_property
    def whole(self) -> Product:
        """All copies."""
        return Product(*self.halves, self.work)

    @cached_property
    def halves(self) -> tuple[Factor, Factor]:
        """The first half of the copies and the rest; equal halves share their polynomial."""
        middle = len(self.visits) // 2
        first = Power(self.base, self.term, self.visits[:middle], self.work)
        second = Power(self.base, self.term, self.visits[middle:], self.work)
        if len(first.visits) == len(second.visits):
            second.polynomial = first.polynomial
        return first, second

    def draw(self, target: Monomial, out: Draw) -> None:
        """Each copy under its own number."""
        if len(self.visits) > 1:
            self.whole.draw(target, out)
            return
        before = out.copies
        out.copies = (*before, (self.term, self.visits[0]))
        self.base.draw(target, out)
        out.copies = before


class Summed(Factor):
    """A factor with some of its variables summed over."""

    lossy = True

    def __init__(self, inner: Factor, variables: frozenset[int], table: Table) -> None:
        self.inner, self.variables, self.table = inner, variables, table

    def weight(self, monomial: Monomial) -> int:
        """In how many ways the summed variables of a monomial can be decided."""
        return prod(self.table.ways(v, i) for v, i in monomial if v in self.variables)

    def kept(self, monomial: Monomial) -> Monomial:
        """The decisions that are left."""
        return frozenset(item for item in monomial if item[0] not in self.variables)

    @cached_property
    def polynomial(self) -> Polynomial:
        """The monomials that are left."""
        total: Polynomial = {}
        for monomial, weight in self.inner.polynomial.items():
            kept = self.kept(monomial)
            total[kept] = total.get(kept, 0) + weight * self.weight(monomial)
        return total

    def draw(self, target: Monomial, out: Draw) -> None:
        """A full monomial by its share, then its decisions."""
        inner = self.inner.polynomial
        full = [monomial for monomial in inner if self.kept(monomial) == target]
        chosen = full[out.pick([inner[m] * self.weight(m) for m in full])]
        self.inner.draw(chosen, out)
        for variable, alternative in sorted(chosen):
            if variable in self.variables:
                self.table.settle(variable, alternative, out)


class Shared(Factor):
    """A factor used in several places, whose uses agree on which of its monomials it is."""

    lossy = True

    def __init__(self, variable: int, inner: Factor) -> None:
        self.variable, self.inner = variable, inner

    @cached_property
    def monomials(self) -> list[Monomial]:
        """The alternatives of the term as a variable."""
        return list(self.inner.polynomial)

    @cached_property
    def weights(self) -> list[int]:
        """In how many ways each can be."""
        return list(self.inner.polynomial.values())

    @cached_property
    def polynomial(self) -> Polynomial:
        """Each monomial with the decision for itself."""
        return {m | {(self.variable, i)}: 1 for i, m in enumerate(self.monomials)}


class Table:
    """The variables by number."""

    def __init__(self, variables: Sequence[Variable]) -> None:
        self.variables = variables
        self.number = {variable: number for number, variable in enumerate(variables)}
        self.shared: dict[int, Shared] = {}

    def ways(self, number: int, alternative: int) -> int:
        """In how many ways one variable can be decided so."""
        variable = self.variables[number]
        if isinstance(variable, Site):
            return variable.size if alternative == ALL else 1
        return self.shared[number].weights[alternative]

    def settle(self, number: int, alternative: int, out: Draw) -> None:
        """Make one decision of a draw."""
        variable = self.variables[number]
        if isinstance(variable, Site):
            index = out.rng.randrange(variable.size) if alternative == ALL else alternative
            out.assignment[variable.at(out.copies).path] = index
        else:
            shared = self.shared[number]
            shared.inner.draw(shared.monomials[alternative], out)


def joined(a: Monomial, b: Monomial) -> Monomial | None:
    """Both sets of decisions; ``None`` where they contradict each other."""
    if not a or a == b:
        return b
    if not b:
        return a
    decided = dict(a)
    for variable, alternative in b:
        known = decided.get(variable, ALL)
        if known == ALL:
            decided[variable] = alternative
        elif alternative not in (ALL, known):
            return None
    return frozenset(decided.items())


class Counter:
    """The factor of a list of terms.

    Args:
        roots: what an architecture evaluates.
        layouts: what each container may run.
    """

    def __init__(
        self, roots: Sequence[Term], layouts: Callable[[LayerTerm], Sequence[Layout]]
    ) -> None:
        self.layouts = layouts
        self.top = Term(roots[0].span) if roots else None
        self.roots = roots
        self.known: dict[Term, Factor] = {}
        self.work = Work()
        self.order = self._order()
        self.table = Table(self.order)
        self.summed, self.used = self._structure()

    @cached_property
    def factor(self) -> Factor:
        """Everything, with every variable summed over."""
        roots = list(map(self._factor, self.roots))
        return UNIT if self.top is None else self._sum_out(roots, self._own(self.top))

    # --- structure --------------------------------------------------------------------------------

    def below(self, term: Term) -> Iterator[Variable]:
        """The terms and sites directly below a term."""
        if term is self.top:
            yield from self.roots
            return
        if isinstance(term, Choice | Points):
            yield term.site
        if isinstance(term, LayerTerm) and term.body:
            yield term.make
            layouts = self.layouts(term)
            yield from (site for layout in layouts for site, _ in layout.when)
            visited = sorted({child for layout in layouts for child in layout.visited})
            yield from (term.body[child].term for child in visited)
        else:
            yield from term.children()

    def _structure(self) -> tuple[dict[Term, list[Variable]], dict[Term, int]]:
        """The variables summed over at each term, and how often each term is used."""
        uses: dict[Variable, list[Term]] = {variable: [] for variable in self.order}
        for variable in self.order:
            if isinstance(variable, Term):
                for child in self.below(variable):
                    uses[child].append(variable)
        used = {v: len(users) for v, users in uses.items() if isinstance(v, Term)}
        for variable in self.order:
            if isinstance(variable, LayerTerm):
                for common in self._common(variable):
                    uses[common].append(variable)
        return self._dominated(uses), used

    def _common(self, term: LayerTerm) -> Iterator[Variable]:
        """What copies of a container's children share, so that it is not summed over in each."""
        if not any(layout.copying for layout in self.layouts(term)):
            return
        seen: set[Variable] = set()
        todo: list[Variable] = [child.term for child in term.body if child.term.each]
        while todo:
            variable = todo.pop()
            if variable in seen:
                continue
            seen.add(variable)
            if not variable.each:
                yield variable
            if isinstance(variable, Term):
                todo += self.below(variable)

    def _order(self) -> list[Variable]:
        """Everything below the top, users before what they use."""
        done: dict[Variable, None] = {}
        stack: list[tuple[Variable, bool]] = [(self.top, False)] if self.top else []
        while stack:
            variable, left = stack.pop()
            if left:
                done.setdefault(variable)
            elif variable not in done:
                stack.append((variable, True))
                if isinstance(variable, Term):
                    stack += [(child, False) for child in self.below(variable) if child not in done]
        return list(done)[::-1]

    def _dominated(self, uses: dict[Variable, list[Term]]) -> dict[Term, list[Variable]]:
        """For each term the variables of which it is the lowest common user."""
        depth: dict[Variable, int] = {}
        parent: dict[Variable, Term] = {}
        summed: dict[Term, list[Variable]] = {}
        for variable in self.order:
            users = uses[variable]
            if not users:
                depth[variable] = 0
                continue
            meet: Term = users[0]
            for user in users[1:]:
                other: Term = user
                while meet is not other:
                    if depth[meet] < depth[other]:
                        other = parent[other]
                    else:
                        meet = parent[meet]
            parent[variable], depth[variable] = meet, depth[meet] + 1
            summed.setdefault(meet, []).append(variable)
        return summed

    # --- factors ----------------------------------------------------------------------------------

    def _factor(self, term: Term) -> Factor:
        if term not in self.known:
            factor = self._sum_out(self._parts(term), self._own(term))
            if factor.lossy and self.used[term] > 1:
                number = self.table.number[term]
                factor = self.table.shared[number] = Shared(number, factor)
            self.known[term] = factor
        return self.known[term]

    def _own(self, term: Term) -> set[int]:
        """The variables of which a term is the lowest common user."""
        return {self.table.number[variable] for variable in self.summed.get(term, ())}

    def _parts(self, term: Term) -> list[Factor]:
        """The factors of a term."""
        if isinstance(term, Points):
            return [self._literal(term.site, ALL)]
        if isinstance(term, Choice):
            return [self._choice(term)]
        if isinstance(term, LayerTerm) and term.body:
            make = self._factor(term.make)
            own = self._own(term) - make.decided
            return [make, Sum([self._layout(term, layout, own) for layout in self.layouts(term)])]
        return [self._factor(child) for child in term.children()]

    def _literal(self, site: Site, index: int) -> Factor:
        return Literal(self.table.number[site], index)

    def _choice(self, term: Choice) -> Factor:
        parts = [self._factor(alternative) for alternative in term.alternatives]
        if all(part is UNIT for part in parts):
            return self._literal(term.site, ALL)
        return Sum(
            [self._product([self._literal(term.site, i), part]) for i, part in enumerate(parts)]
        )

    def _layout(self, term: LayerTerm, layout: Layout, own: set[int]) -> Factor:
        when = [self._literal(site, index) for site, index in layout.when]
        children = {child: term.body[child].term for child in layout.visited}
        if not layout.copying:
            return self._sum_out([*when, *map(self._factor, children.values())], own)
        common = [self._factor(child) for child in children.values() if not child.each]
        copies = [self._copies(term, visit, numbers) for visit, numbers in layout.groups.items()]
        return self._sum_out([*when, *common, *copies], own)

    def _copies(self, term: LayerTerm, visit: Sequence[int], numbers: Sequence[int]) -> Factor:
        """The children of equal visits that every copy draws for itself."""
        children = [term.body[i].term for i in visit if term.body[i].term.each]
        factors = list(map(self._factor, children))
        decided = (v for factor in factors for v in factor.decided if self.table.variables[v].each)
        inner = self._sum_out(factors, set(decided))
        return Power(inner, term, numbers, self.work) if inner.lossy else inner

    # --- products and sums ------------------------------------------------------------------------

    def _product(self, factors: Iterable[Factor]) -> Factor:
        proper = [factor for factor in factors if factor is not UNIT]
        return reduce(lambda a, b: Product(a, b, self.work), proper) if proper else UNIT

    def _sum_out(self, factors: Sequence[Factor], variables: set[int]) -> Factor:
        """The product, with variables summed over as soon as everything that uses them is in it."""
        left = list(factors)
        while True:
            users = {v: [f for f in left if v in f.decided] for v in sorted(variables)}
            users = {v: found for v, found in users.items() if found}
            if not users:
                return self._product(left)
            group = min(users.values(), key=lambda found: prod(len(f.polynomial) for f in found))
            done = {v for v, found in users.items() if all(f in group for f in found)}
            left = [factor for factor in left if factor not in group]
            left.append(Summed(self._product(group), frozenset(done), self.table))
