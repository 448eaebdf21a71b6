"""Contract suites: what every criterion and every probe must do, ours or anybody's, as tests to inherit.

    from prunescope.testing import ProbeContract

    class TestMyProbe(ProbeContract):
        probe = MyProbe()

pytest then runs the whole contract on a tiny network and tiny images (`tiny_network`, `tiny_data`), in about a second.
"""

from prunescope.testing.criteria import CriterionContract as CriterionContract
from prunescope.testing.probes import ProbeContract as ProbeContract
from prunescope.testing.probes import assert_same_record as assert_same_record
from prunescope.testing.samples import tiny_batches as tiny_batches
from prunescope.testing.samples import tiny_data as tiny_data
from prunescope.testing.samples import tiny_network as tiny_network
from prunescope.testing.snapshot import Snapshot as Snapshot

__all__ = [
    "CriterionContract",
    "ProbeContract",
    "Snapshot",
    "assert_same_record",
    "tiny_batches",
    "tiny_data",
    "tiny_network",
]
