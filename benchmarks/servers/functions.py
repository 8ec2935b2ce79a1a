"""The workloads as handlers of ours."""


def double(x):
    return x * 2


def head(x):
    return x[:, :1000] * 2


def upper(x):
    return [text.upper() for text in x]
