"""`metrics.json`: the scores of an output folder, each kind under its own name."""

import json
from typing import Any

from pseudolabel.shards.folder import Folder
from pseudolabel.shards.ledger import encode_json

METRICS = "metrics.json"


def record_metrics(out: str, name: str, scores: dict[str, Any]) -> None:
    """Put scores into OUT/metrics.json under their name; what others have put there stays."""
    folder = Folder(out)
    folder.prepare()
    before = json.loads(folder.read_bytes(METRICS)) if folder.exists(METRICS) else {}
    folder.write_bytes(METRICS, encode_json({**before, name: scores}))
