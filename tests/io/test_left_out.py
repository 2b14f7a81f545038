from pseudolabel.io.left_out import LeftOut


def test_the_line_counts_by_reason_in_descending_order():
    left_out = LeftOut({".txt": 1, "hidden": 2}) + LeftOut({"hidden": 2, ".heic (pip install pillow-heif)": 2})
    assert str(left_out) == "7 files left out: 4 hidden, 2 .heic (pip install pillow-heif), 1 .txt"
    assert left_out.total == 7


def test_without_left_out_files_there_is_no_line():
    assert str(LeftOut()) == ""
    assert str(LeftOut({"hidden": 1})) == "1 file left out: 1 hidden"


def test_entries_are_not_called_files():
    assert str(LeftOut({"object(s) without an outline": 2})) == "2 left out: 2 object(s) without an outline"
