"""Pools of worker processes."""

import subprocess
import sys

from pseudolabel.runtime.workers import PRELOADED, open_pool

SCRIPT = f"""
import sys
from pseudolabel.runtime.workers import open_pool

if __name__ == "__main__":
    for _ in range(2):
        with open_pool(1) as pool:
            print(pool.submit(eval, "{{*{PRELOADED}}} <= {{*__import__('sys').modules}}").result())
"""


def test_workers_of_every_pool_have_their_imports(tmp_path) -> None:
    """In a process of its own, since the server of this one may be older."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "True\nTrue\n"


def test_workers_are_initialised() -> None:
    with open_pool(2, print, ("",)) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
