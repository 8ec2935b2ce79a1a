"""Estimates the rent of flats: text, whole numbers, decimals and flags in one table."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

DISTRICTS = {"centre": 650, "harbour": 500, "hills": 350}


@dataclass
class Flat:
    """A row of the table, and a tensor for each field."""

    district: Literal["centre", "harbour", "hills"]
    rooms: Annotated[int, Field(ge=1, le=9)]
    area: Annotated[float, Field(gt=0, description="square metres")]
    balcony: bool = False


class Rent(TypedDict):
    """A tensor for each field."""

    rent: float
    per_square_metre: float


class Rents:
    """One instance is made at load; it trains a pipeline on a table that it draws."""

    def __init__(self):
        columns = make_column_transformer(
            (OneHotEncoder(), ["district"]),
            (StandardScaler(), ["rooms", "area"]),
            remainder="passthrough",
        )
        flats = drawn(500)
        self.pipeline = make_pipeline(columns, Ridge()).fit(flats, rents(flats))

    def predict(self, flats: Annotated[pd.DataFrame, Flat]) -> Annotated[pd.DataFrame, Rent]:
        rent = self.pipeline.predict(flats).round()
        return pd.DataFrame({"rent": rent, "per_square_metre": rent / flats.area})


def drawn(count):
    draw = np.random.default_rng(1)
    rooms = draw.integers(1, 7, count)
    return pd.DataFrame(
        {
            "district": draw.choice(list(DISTRICTS), count),
            "rooms": rooms,
            "area": rooms * draw.uniform(15, 30, count),
            "balcony": draw.random(count) > 0.5,
        }
    )


def rents(flats):
    return flats.district.map(DISTRICTS) + 40 * flats.rooms + 9 * flats.area + 80 * flats.balcony
