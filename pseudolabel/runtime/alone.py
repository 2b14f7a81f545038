"""Commands that one process does, under a launcher that starts several."""

import logging
import os

log = logging.getLogger(__name__)

RANK, WORLD = "RANK", "WORLD_SIZE"
# Set by launchers; without them a process works as if it had been started by hand.
_LAUNCHED = (RANK, WORLD, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")


def stands_aside(command: str) -> bool:
    """Whether this process leaves the work to the first one, which logs that and goes on as a single process."""
    ranks = int(os.environ.get(WORLD, "1"))
    if ranks < 2:
        return False
    if os.environ.get(RANK, "0") != "0":
        return True
    others = "the other process ends" if ranks == 2 else f"the other {ranks - 1} processes end"
    log.info("pseudolabel %s: one process does this; %s", command, others)
    for name in _LAUNCHED:
        os.environ.pop(name, None)
    return False
