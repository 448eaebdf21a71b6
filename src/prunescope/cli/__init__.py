"""The command line: verbs, help and exit codes; no logic of its own.

Exit codes: 0 done; 2 the input is wrong, or cells failed (one clear line each on stderr; the other cells are done);
130 stopped.
"""

from __future__ import annotations

import sys

from prunescope.core.errors import PrunescopeError


def main() -> None:
    """Entry point of `prunescope`."""
    from prunescope.cli.verbs import app

    try:
        app()
    except PrunescopeError as error:
        first, *rest = str(error).splitlines() or ["unknown error"]
        print(f"error: {first}", *rest, sep="\n", file=sys.stderr)
        sys.exit(2)
