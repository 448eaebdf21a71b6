"""Can heat maps be trusted? Sanity checks, and faithfulness beside random maps; tickets beside dense. Words first."""

from __future__ import annotations

from collections.abc import Callable

from prunescope.report.places import recipes_done
from prunescope.report.trust_faithfulness import faithfulness_view
from prunescope.report.trust_sanity import sanity_view
from prunescope.report.trust_series import Series, TrustView
from prunescope.study.results import Results


def trust_views(found: Results) -> list[TrustView]:
    """One per probe `sanity` or `faithfulness` and recipe of which tickets are done."""
    kinds: dict[str, Callable[[Series], TrustView]] = {"sanity": sanity_view, "faithfulness": faithfulness_view}
    return [
        kinds[probe.name](Series(found, key, recipe))
        for key, probe in found.study.probes.items()
        if probe.name in kinds
        for recipe in recipes_done(found)
    ]
