import pytest

from pseudolabel.runtime.alone import stands_aside


def test_one_process_of_several_does_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="pseudolabel")
    assert not stands_aside("verify")  # a plain run
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert stands_aside("verify")
    assert caplog.messages == []
    monkeypatch.setenv("RANK", "0")
    assert not stands_aside("verify")
    said = ["pseudolabel verify: one process does this; the other 2 processes end"]
    assert caplog.messages == said
    assert not stands_aside("verify")  # it takes itself for the only one now
    assert caplog.messages == said
