"""The workloads as handlers of mlserver-pyfunc, by the ways to take a table."""

from typing import Annotated, TypedDict

import pandas as pd
from answers import answer
from columns import KINDS


class Answer(TypedDict):
    y: float


T1, T2, T3 = (TypedDict(name.upper(), KINDS[name]) for name in ("t1", "t2", "t3"))


def t1_rows(rows: list[T1]):
    return {"y": answer("t1", pd.DataFrame(rows))["y"].to_numpy()}


def t2_rows(rows: list[T2]):
    return {"y": answer("t2", pd.DataFrame(rows))["y"].to_numpy()}


def t3_rows(rows: list[T3]):
    return {"y": answer("t3", pd.DataFrame(rows))["y"].to_numpy()}


def t1_hand(inputs):
    return {"y": answer("t1", pd.DataFrame(inputs))["y"].to_numpy()}


def t2_hand(inputs):
    return {"y": answer("t2", pd.DataFrame(inputs))["y"].to_numpy()}


def t3_hand(inputs):
    return {"y": answer("t3", pd.DataFrame(inputs))["y"].to_numpy()}


def t1_frame(frame: Annotated[pd.DataFrame, T1]) -> Annotated[pd.DataFrame, Answer]:
    return answer("t1", frame)


def t2_frame(frame: Annotated[pd.DataFrame, T2]) -> Annotated[pd.DataFrame, Answer]:
    return answer("t2", frame)


def t3_frame(frame: Annotated[pd.DataFrame, T3]) -> Annotated[pd.DataFrame, Answer]:
    return answer("t3", frame)
