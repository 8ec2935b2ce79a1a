"""The workloads on BentoML, with its frames in and out."""

from typing import Annotated

import bentoml
import pandas as pd
from answers import answer
from bentoml.validators import DataframeSchema

Frame = Annotated[pd.DataFrame, DataframeSchema(orient="columns")]


@bentoml.service(workers=1, traffic={"timeout": 60})
class Framed:
    @bentoml.api
    def t1(self, frame: Frame) -> Frame:
        return answer("t1", frame)

    @bentoml.api
    def t2(self, frame: Frame) -> Frame:
        return answer("t2", frame)

    @bentoml.api
    def t3(self, frame: Frame) -> Frame:
        return answer("t3", frame)
