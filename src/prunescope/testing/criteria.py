"""What every criterion must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunescope.core.configure import canonical, named
from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.untouched import fixed_rng, untouched
from prunescope.models.layers import prunable
from prunescope.pruning.scoring import Batches, Criterion, criteria, cut
from prunescope.testing.samples import BreakdownError, tiny_batches, tiny_network
from prunescope.testing.snapshot import Snapshot, prepare

_OTHER = {True: "different", False: "equal"}


class CriterionContract:
    """Inherit, name the class `Test...`, and set `criterion` (or override `make_criterion`).

    Attributes:
        criterion: the criterion to hold to the contract.
    """

    criterion: Criterion

    def make_criterion(self) -> Criterion:
        """The criterion; override when its options must be made."""
        return self.criterion

    def make_network(self) -> nn.Module:
        """A network that fits `make_batches`."""
        return tiny_network()

    def make_batches(self) -> Batches:
        """Training data for criteria that need it."""
        return tiny_batches()

    # -- what it is

    def test_it_is_registered(self) -> None:
        kind = type(self.make_criterion())
        assert criteria.get(kind.name) is kind, f"register {kind.__name__} with @criteria.register(name)"
        assert kind.summary, "`summary` is empty: `prunescope list criteria` has nothing to say"

    def test_its_fields_are_its_configuration(self) -> None:
        item = self.make_criterion()
        assert is_dataclass(item), "a criterion is a frozen dataclass"
        assert type(item).__dataclass_params__.frozen, "the dataclass is not frozen"
        assert hash(item) == hash(self.make_criterion()), "equal options must make equal criteria"
        again = named(criteria, canonical(item), "criterion")
        assert again == item, f"written to YAML and read back it is {again}, not {item}"

    # -- what it gives

    def test_every_weight_has_a_finite_score(self) -> None:
        """Also weights that were pruned before, in a mask that is no longer dense."""
        for mask in (self._dense(), self._sparse()):
            scores = self._scores(mask)
            assert set(mask) <= set(scores), f"no scores for {sorted(set(mask) - set(scores))}"
            for name, kept in mask.items():
                assert scores[name].shape == kept.shape, f"scores of {name} have shape {tuple(scores[name].shape)}"
                assert bool(scores[name].isfinite().all()), f"scores of {name} are not finite"
                assert not scores[name].requires_grad, f"scores of {name} carry a graph"

    def test_cuts_are_exact_and_nested(self) -> None:
        before = self._sparse()
        for scope in ("global", "layer"):
            for keep in (0.0, 0.2, before.density):
                after = self._cut(before, keep=keep, scope=scope)
                wanted = _count(before, keep, scope)
                assert after.kept == wanted, f"{scope} cut to {keep:.2f} keeps {after.kept} weights, not {wanted}"
                assert after.nested_in(before), "pruned weights came back"

    def test_the_higher_score_stays(self) -> None:
        """Scores that the cut itself goes by: of its only step."""
        item, mask, network = self.make_criterion(), self._dense(), self.make_network()
        if item.iterations > 1:
            item = replace(item, iterations=1)  # type: ignore[type-var]
        scores, after = self._scores(mask), cut(network, mask, item, keep=0.5, batches=self.make_batches())
        kept = torch.cat([scores[name][stays] for name, stays in after.items()])
        cut_off = torch.cat([scores[name][~stays] for name, stays in after.items()])
        assert float(kept.min()) >= float(cut_off.max()), "a weight was cut whose score is higher than a kept one's"

    # -- what it leaves alone

    def test_the_network_is_left_as_it_was(self) -> None:
        network, mask = prepare(self.make_network()), self._dense()
        before = Snapshot(network)
        cut(network, mask, self.make_criterion(), keep=0.5, batches=self.make_batches())
        assert not before.differences(), f"changed: {before.differences()}"

    def test_the_network_is_left_as_it_was_after_an_error(self) -> None:
        item, network, mask = self.make_criterion(), prepare(self.make_network()), self._dense()
        if not item.needs_data:
            return
        before, broken = Snapshot(network), _Breaking(self.make_batches())
        try:
            cut(network, mask, item, keep=0.5, batches=broken)
        except BreakdownError:
            assert not before.differences(), f"changed: {before.differences()}"
        else:
            assert not broken.broke, "an error while reading batches was swallowed"

    def test_the_mask_is_left_as_it_was(self) -> None:
        mask = self._sparse()
        before = Mask(mask)
        self._scores(mask)
        assert mask == before

    # -- what it depends on

    def test_it_gives_the_same_twice(self) -> None:
        """To the last bit, whatever state the global generators are in."""
        with fixed_rng():
            torch.manual_seed(1)
            first = self._scores(self._dense())
            torch.manual_seed(2)
            assert _same(first, self._scores(self._dense())), "equal seeds give different scores"

    def test_the_seed_matters_if_it_says_so(self) -> None:
        same = _same(self._scores(self._dense(), seed=0), self._scores(self._dense(), seed=1))
        wanted = self.make_criterion().needs_seed
        assert same != wanted, f"`needs_seed` is {wanted}, but seeds give {'equal' if same else 'different'} scores"

    def test_it_needs_no_data_unless_it_says_so(self) -> None:
        if not self.make_criterion().needs_data:
            network, mask = self.make_network(), self._dense()
            cut(network, mask, self.make_criterion(), keep=0.5, batches=None)

    def test_labels_matter_if_it_says_so(self) -> None:
        """Other labels give other scores; without labels it works, or `cut` refuses."""
        item, mask = self.make_criterion(), self._dense()
        if not item.needs_data:
            assert not item.needs_labels, "`needs_labels` is True, but `needs_data` is not"
            return
        before, batches = self._scores(mask), self.make_batches
        self.make_batches = lambda: _relabelled(batches(), lambda y: y.flip(0))  # type: ignore[method-assign]
        changes, wanted = not _same(before, self._scores(mask)), item.needs_labels
        assert changes == wanted, f"`needs_labels` is {wanted}, but other labels give {_OTHER[changes]} scores"
        for none in (lambda y: None, lambda y: y - y - 1):
            self.make_batches = lambda none=none: _relabelled(batches(), none)  # type: ignore[method-assign,misc]
            refusal = _error(lambda: self._cut(mask, keep=0.5))
            assert (refusal is None) != wanted, f"`needs_labels` is {wanted}, but without labels there is {refusal!r}"
            if wanted:
                assert isinstance(refusal, PrunescopeError), f"without labels there is {refusal!r}"
                assert "needs labels" in str(refusal), f"without labels it says: {refusal}"

    def test_gradients_are_taken_if_it_says_so(self) -> None:
        with _Watch() as watch:
            self._scores(self._dense())
        wanted = self.make_criterion().needs_gradients
        assert watch.backward == wanted, f"`needs_gradients` is {wanted}, but gradients are taken: {watch.backward}"

    def test_a_filter_s_weights_share_its_score_if_it_says_so(self) -> None:
        alike = all(bool((s == s.flatten(1)[:, :1].view(-1, *[1] * (s.ndim - 1))).all())
                    for s in self._scores(self._dense()).values())  # fmt: skip
        per = self.make_criterion().per
        assert alike == (per == "filter"), f"`per` is {per!r}, but a filter's weights score {_OTHER[not alike]}"

    # -- helpers

    def _dense(self) -> Mask:
        network = self.make_network()
        return Mask.dense(network, prunable(network))

    def _sparse(self) -> Mask:
        """Every third weight pruned before."""
        return Mask({name: torch.arange(m.numel()).view_as(m) % 3 > 0 for name, m in self._dense().items()})

    def _network(self, mask: Mask) -> nn.Module:
        network = self.make_network()
        mask.apply_(network)
        return network

    def _scores(self, mask: Mask, *, seed: int = 0) -> dict[str, Tensor]:
        item = self.make_criterion()
        with untouched(self._network(mask)) as network:
            batches = self.make_batches() if item.needs_data else None
            return dict(item.score(network, mask, batches=batches, seed=seed))

    def _cut(self, mask: Mask, *, keep: float, scope: str = "global") -> Mask:
        item, network = self.make_criterion(), self._network(mask)
        return cut(network, mask, item, keep=keep, scope=scope, batches=self.make_batches())  # type: ignore[arg-type]


def _count(mask: Mask, keep: float, scope: str) -> int:
    if scope == "global":
        return round(keep * mask.total)
    return sum(min(round(keep * kept.numel()), int(kept.sum())) for kept in mask.values())


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def _relabelled(batches: Batches, change: Callable[[Tensor], Any]) -> Batches:
    return lambda: ((x, change(y)) for x, y in batches())


def _error(run: Callable[[], object]) -> Exception | None:
    try:
        run()
    except (PrunescopeError, RuntimeError) as error:
        return error
    return None


class _Watch(TorchDispatchMode):
    """Sees every operation, also those of vectorised gradients."""

    backward = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.backward |= "backward" in str(func)
        return func(*args, **(kwargs or {}))


class _Breaking:
    """Batches that end in an error after the first."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.broke = batches, False

    def __call__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield next(self.batches())
        self.broke = True
        raise BreakdownError
