from pathlib import Path

import pytest

from scripts.prepare_voc import OFFICIAL
from tests.scripts.archives import Data, describe, run_script, sbd_contents, voc_contents, voc_test_contents, write_tar


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("archives")
    trainval, test, sbd = (folder / archive.name for archive in (OFFICIAL.trainval, OFFICIAL.test, OFFICIAL.sbd))
    write_tar(trainval, voc_contents())
    write_tar(test, voc_test_contents())
    write_tar(sbd, sbd_contents(), "w:gz")
    return Data(trainval, test, sbd, describe(trainval, test, sbd))


@pytest.fixture(scope="session")
def prepared(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder that the whole script has prepared from local archives without disturbance, and what it printed."""
    out = tmp_path_factory.mktemp("prepared")
    finished = run_script(data.release, "--out", out, *data.options)
    assert finished.returncode == 0, finished.stderr
    return out, finished.stdout
