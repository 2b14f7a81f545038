"""Choose the checkpoint from which training resumes."""

from pathlib import Path

from mmengine.config import Config

from pseudolabel_train.errors import WeightsError
from pseudolabel_train.weights import LAST, check_file, checkpoints, follow


def choose_checkpoint(cfg: Config) -> None:
    """Let the config resume from the newest checkpoint of its work folder, or start without one.

    Raises:
        WeightsError: if the newest checkpoint is missing or damaged; the message names the previous one.
    """
    cfg.resume = True
    folder = Path(cfg.work_dir)
    last, found = folder / LAST, checkpoints(folder)
    if cfg.get("load_from"):
        check_file(cfg.load_from)
    elif last.is_file():
        cfg.load_from = str(_checked(follow(last), found))
    elif found:
        raise WeightsError(f"'{folder}' has no {LAST}, which names the newest checkpoint; {_hint(found[0])}")


def _checked(newest: Path, found: list[Path]) -> Path:
    try:
        return check_file(str(newest))
    except WeightsError as error:
        before = next((path for path in found if path.name != newest.name), None)
        fix = _hint(before) if before else "there is no other; remove it and train from the start"
        raise WeightsError(f"the newest checkpoint {error}; {fix}") from error


def _hint(path: Path) -> str:
    return f"to resume from '{path.name}' set `resume` `cfg_options` load_from={path}"
