from pseudolabel.io.left_out import LeftOut


def test_the_line_counts_by_reason_and_begins_with_the_most():
    left_out = LeftOut({".txt": 1, "hidden": 2}) + LeftOut({"hidden": 2, ".heic (pip install pillow-heif)": 2})
    assert str(left_out) == "7 files left out: 4 hidden, 2 .heic (pip install pillow-heif), 1 .txt"
    assert left_out.total == 7


def test_nothing_left_out_is_no_line():
    assert str(LeftOut()) == ""
    assert str(LeftOut({"hidden": 1})) == "1 file left out: 1 hidden"


def test_what_is_no_file_is_not_called_one():
    assert str(LeftOut({"object(s) without an outline": 2})) == "2 left out: 2 object(s) without an outline"
