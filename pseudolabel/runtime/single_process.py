"""Commands that use one process, also under a launcher that starts several."""

import logging
import os

log = logging.getLogger(__name__)

RANK, WORLD = "RANK", "WORLD_SIZE"
# Set by launchers; without them a process is a plain one.
_LAUNCHER_VARIABLES = (RANK, WORLD, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")


def leave_to_first_rank(command: str) -> bool:
    """Whether this process leaves the command to rank 0; rank 0 logs this and becomes a plain process."""
    ranks = int(os.environ.get(WORLD, "1"))
    if ranks < 2:
        return False
    if os.environ.get(RANK, "0") != "0":
        return True
    others = "the other process ends" if ranks == 2 else f"the other {ranks - 1} processes end"
    log.info("pseudolabel %s: this command uses one process; %s", command, others)
    for name in _LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    return False
