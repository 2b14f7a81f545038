"""Commands whose work is one process's, under a launcher that starts several."""

import os
import sys

RANK, WORLD = "RANK", "WORLD_SIZE"
# What launchers tell their processes; a process that does not know it works as if it had been started by hand.
_LAUNCHED = (RANK, WORLD, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")


def stands_aside(command: str) -> bool:
    """Whether this process leaves the work to the first one; the first one says so and goes on as a single process."""
    ranks = int(os.environ.get(WORLD, "1"))
    if ranks < 2:
        return False
    if os.environ.get(RANK, "0") != "0":
        return True
    others = "the other process ends" if ranks == 2 else f"the other {ranks - 1} processes end"
    print(f"pseudolabel {command}: one process does this; {others}", file=sys.stderr)
    for name in _LAUNCHED:
        os.environ.pop(name, None)
    return False
