"""`metrics.json`: the scores in an output folder, by name of the evaluation."""

import json
from collections.abc import Iterable
from typing import Any

from pseudolabel.io.folder import Folder
from pseudolabel.io.json_text import encode_json
from pseudolabel.io.ownership import OwnFiles

METRICS = "metrics.json"


def check_metrics(out: str, plots: Iterable[str] = (), option: str = "`out`") -> None:
    """Check, before computing scores, that they can be recorded.

    Args:
        out: the output folder.
        plots: names of files that will be written next to OUT/metrics.json.
        option: the option that names the folder, for messages.

    Raises:
        NotOursError: if one of the files exists and this package did not write it.
    """
    OwnFiles(Folder(out), option=option).check((METRICS, *plots))


def record_metrics(out: str, name: str, scores: dict[str, Any], option: str = "`out`") -> None:
    """Store scores in OUT/metrics.json under a name; entries of other commands are kept.

    Raises:
        NotOursError: if the file exists and this package did not write it.
    """
    folder = Folder(out)
    folder.prepare()
    files = OwnFiles(folder, option=option)
    files.check([METRICS])
    before = json.loads(folder.read_bytes(METRICS)) if folder.exists(METRICS) else {}
    files.write({METRICS: encode_json({**before, name: scores})})
