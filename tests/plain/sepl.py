"""SEPL's rule, pixel by pixel, as the paper's text gives it, with this package's choices for what it leaves open."""


def adjust(best, labels, masks, classes):
    """(labels, most probable labels) after the masks, as lists of lists."""
    height, width = len(best), len(best[0])
    pixels = [(y, x) for y in range(height) for x in range(width)]
    owner = {}
    for number, mask in enumerate(masks):
        area = sum(bool(mask[y][x]) for y, x in pixels)
        candidates = []
        for label in classes:
            own = sum(best[y][x] == label for y, x in pixels)
            common = sum(bool(mask[y][x]) and best[y][x] == label for y, x in pixels)
            if common > 0 and (common / area > 0.5 or common / own >= 0.85):
                candidates.append((common, -label))
        if candidates:
            owner[number] = (-max(candidates)[1], area)
    new_best = [list(row) for row in best]
    new_labels = [list(row) for row in labels]
    for y, x in pixels:
        here = [number for number, mask in enumerate(masks) if mask[y][x]]
        taken = [number for number in here if number in owner]
        if taken:
            label = owner[min(taken, key=lambda number: (owner[number][1], number))][0]
            new_best[y][x] = new_labels[y][x] = label
        elif here and best[y][x] != 0:
            new_best[y][x] = new_labels[y][x] = 0
    return new_labels, new_best
