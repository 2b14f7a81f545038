from pseudolabel.evaluation.scope import Scope
from pseudolabel.io.left_out import LeftOut


def test_a_complete_scope_prints_nothing() -> None:
    scope = Scope(3)
    assert scope.is_whole
    assert scope.lines() == []
    assert scope.to_dict()["not_scored"] == 0


def test_unscored_images_are_counted_by_reason() -> None:
    missing = {key: ("no prediction", f"no prediction for '{key}'") for key in "abcde"}
    scope = Scope(
        1200,
        {**missing, "f\x07": ("unreadable", "no PNG")},
        ["x.png", "y.png"],
        LeftOut({".json": 2}),
        ["no class in the predictions"],
    )
    assert not scope.is_whole
    assert scope.lines() == [
        "2 files left out: 2 .json",
        "2 predictions are of no listed image: 'x.png', 'y.png'",
        r"6 of 1,200 images not scored: no prediction for 'a', 'b', 'c' and 2 more; unreadable for 'f\u0007'",
        "  5 no prediction, such as:",
        "    no prediction for 'a'",
        "    no prediction for 'b'",
        "  1 unreadable:",
        "    no PNG",
        "warning: no class in the predictions",
    ]
    found = scope.to_dict()
    assert found["reasons"] == {"no prediction": 5, "unreadable": 1}
    assert found["failures"]["a"] == {"status": "no prediction", "message": "no prediction for 'a'"}


def test_a_truth_without_classes_is_incomplete() -> None:
    assert not Scope(3, is_empty=True).is_whole
