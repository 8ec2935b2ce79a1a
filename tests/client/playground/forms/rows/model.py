"""Sums numbers of rows, by name."""


def total(id, amount, is_paid, country, note):  # noqa: A002
    return {"count": [len(id)], "paid": [amount[is_paid].sum()], "ids": id, "notes": note}
