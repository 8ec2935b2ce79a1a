"""Counts the colours of a photo."""


def mean(photo):
    return {"mean": photo.reshape(-1, 3).mean(axis=0), "size": photo.shape[:2]}
