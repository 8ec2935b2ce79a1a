"""Adds up the cells of each row."""


def total(cells, ids, notes, factor):
    return {"total": cells.sum(axis=1) * factor, "ids": ids}
