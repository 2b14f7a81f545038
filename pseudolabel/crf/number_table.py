"""Find int64 numbers among many: a hash table made of array operations."""

import numpy as np

EMPTY = -1
CELLS_PER_NUMBER = 4
# Multiplicative hashing (Knuth, The Art of Computer Programming, 6.4): another odd multiplier for each level.
MULTIPLIER = 0x9E3779B97F4A7C15
BITS = 64


class NumberTable:
    """Positions of numbers, for looking up.

    In a level, a cell keeps one of the numbers that fall into it; those that lose it go to the next level. So each
    level places some of the numbers, and a number that falls into an empty cell is in no level.

    Args:
        numbers: int64 (K,), with or without repetitions; at least one.
        distinct: about how many of them differ; the table's size, and not what it finds, depends on it.

    Attributes:
        positions: int32 (K,), for each number the position of its representative: the same for equal numbers.
    """

    def __init__(self, numbers: np.ndarray, distinct: int) -> None:
        self.numbers = numbers
        self._levels: list[tuple[int, np.ndarray]] = []
        self.positions = self._place(numbers, np.arange(len(numbers), dtype=np.int32), distinct)
        lost = self._others(self.positions, numbers)
        while len(lost):
            wanted = numbers.take(lost)
            winners = self._place(wanted, lost, len(lost))
            self.positions[lost] = winners
            lost = lost[self._others(winners, wanted)]

    def _place(self, wanted: np.ndarray, positions: np.ndarray, distinct: int) -> np.ndarray:
        """Add a level for these numbers; the position that each one's cell keeps, int32."""
        bits = (CELLS_PER_NUMBER * distinct).bit_length()
        cells, places = np.full(2**bits, EMPTY, np.int32), _places(wanted, len(self._levels), bits)
        cells[places] = positions
        self._levels.append((bits, cells))
        return cells.take(places, mode="clip")

    def _others(self, winners: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        return (self.numbers.take(winners, mode="clip") != wanted).nonzero()[0].astype(np.int32)

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """Position of the representative of each wanted number, int64 (Q,), or -1 where there is none: int32 (Q,)."""
        found = np.full(len(wanted), EMPTY, np.int32)
        asked = np.arange(len(wanted))
        for level, (bits, cells) in enumerate(self._levels):
            winners = cells.take(_places(wanted, level, bits), mode="clip")
            occupied = (winners != EMPTY).nonzero()[0]
            winners, wanted, asked = winners.take(occupied), wanted.take(occupied), asked.take(occupied)
            is_found = self.numbers.take(winners, mode="clip") == wanted
            hits, others = is_found.nonzero()[0], (~is_found).nonzero()[0]
            found[asked.take(hits)] = winners.take(hits)
            asked, wanted = asked.take(others), wanted.take(others)
        return found


def _places(numbers: np.ndarray, level: int, bits: int) -> np.ndarray:
    multiplier = np.uint64(pow(MULTIPLIER, level + 1, 2**BITS))
    places = numbers.view(np.uint64) * multiplier
    places >>= np.uint64(BITS - bits)
    return places.view(np.int64)
