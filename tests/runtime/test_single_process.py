import pytest

from pseudolabel.runtime.single_process import leave_to_first_rank


def test_the_first_of_several_processes_runs_the_command(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="pseudolabel")
    assert not leave_to_first_rank("verify")  # a plain run
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert leave_to_first_rank("verify")
    assert caplog.messages == []
    monkeypatch.setenv("RANK", "0")
    assert not leave_to_first_rank("verify")
    expected = ["pseudolabel verify: this command uses one process; the other 2 processes end"]
    assert caplog.messages == expected
    assert not leave_to_first_rank("verify")  # it is a plain process now
    assert caplog.messages == expected
