import torch

from pseudolabel.runtime.fetching import fetch


def test_results_follow_after_the_next_one_is_queued():
    queued: list[int] = []

    def results():
        for number in range(4):
            queued.append(number)
            yield number, torch.full((2,), number)

    seen = []
    for number, tensor in fetch(results()):
        assert tensor.tolist() == [number, number]
        seen.append(len(queued))
    assert seen == [2, 3, 4, 4]
    assert list(fetch([])) == []
