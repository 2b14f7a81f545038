"""Score the shipped model on images it has never seen, and write the scores beside it.

Labels, refines and scores held-out Shapes, runs both of the paper's ablations, and writes `scores.json` into the
model's folder and the tables of docs/shapes.md onto the terminal.

    python scripts/score_shapes.py
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from pseudolabel.errors import OutputError
from pseudolabel.io.own_folder import clear_folder

MODEL = Path("pseudolabel/shapes/models/shapes")
SEED = 20231  # neither the model nor its settings have seen images of this seed
IMAGES = 200
TABLES = {"components": "diffsegmenter-4", "timesteps": "diffsegmenter-5"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/score_shapes"))
    parser.add_argument("--images", type=int, default=IMAGES)
    arguments = parser.parse_args()
    try:
        clear_folder(arguments.out, "score_shapes.py")
    except OutputError as error:
        parser.error(str(error))
    data = arguments.out / "data"
    run("shapes", "--out", data, "--train", 0, "--val", arguments.images, "--seed", SEED)
    experiment = ["--config", "configs/pipeline/shapes.yaml", "--source.path", data, "--out", arguments.out]
    for command in (["generate"], ["evaluate", "cams"], ["evaluate", "masks"]):
        run(*command, *experiment)
    for table in TABLES.values():
        run("reproduce", table, "--data", data, *experiment, "--captions.source", data / "captions.jsonl")
    scores = collect(arguments.out, arguments.images)
    (MODEL / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


def run(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "pseudolabel", *map(str, arguments)], check=True)


def collect(out: Path, images: int) -> dict:
    metrics = json.loads((out / "metrics.json").read_text())
    cams, masks = metrics["cams"], metrics["masks"]
    return {
        "data": {"source": "shapes", "split": "val", "seed": SEED, "images": images},
        "cam_miou_oracle": cams["oracle"],
        "cam_miou_fixed": cams["fixed"],
        "mask_miou": masks["miou"],
        "mask_coverage": masks["coverage"],
        **{name: json.loads((out / table / "metrics.json").read_text())["rows"] for name, table in TABLES.items()},
    }


if __name__ == "__main__":
    main()
