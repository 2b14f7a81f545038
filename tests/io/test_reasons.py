from pseudolabel.io.reasons import first_by_reason, reason_lines


def test_reasons_are_counted_with_their_first_messages() -> None:
    failures = [("missing", f"{key}: no file") for key in "abc"] + [("truncated", "d\x1b[2J: ends early")]
    first = first_by_reason(failures)
    assert first == {"missing": ["a: no file", "b: no file"], "truncated": ["d\x1b[2J: ends early"]}
    assert reason_lines({"truncated": 1, "missing": 1200}, first) == [
        "  1,200 missing, such as:",
        "    a: no file",
        "    b: no file",
        "  1 truncated:",
        r"    d\u001b[2J: ends early",
    ]
    assert reason_lines({}, {}) == []
