"""Turns dates into numbers: the only transformer in preparation that is not scikit-learn's own."""

from __future__ import annotations

import re
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from pipeline.type_names import stored

PARTS = ("year", "month", "weekday", "hour", "days")
DAY_US = 24 * 3600 * 1_000_000
FINER_THAN_US = re.compile(r"(?<=\.\d{6})\d+")


@stored
class DateFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns each date column into year, month, weekday (Monday is 0), hour, and days since the training minimum.

    Takes a frame or array of shape (rows, columns) of datetimes or ISO 8601 text; without a time zone they are UTC.
    Returns float64 of shape (rows, 5 * columns), with NaN where a date is missing.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        moments = _moments(X)
        self.n_features_in_ = len(moments)
        self.feature_names_in_ = np.asarray(getattr(X, "columns", range(len(moments))), dtype=object)
        self.start_us_ = np.array([_start_us(column) for column in moments], dtype=np.float64)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        moments = _moments(X)
        if len(moments) != self.n_features_in_:
            raise ValueError(f"{self.n_features_in_} date columns are needed, not {len(moments)}")
        blocks = [_parts(column, start) for column, start in zip(moments, self.start_us_, strict=True)]
        return np.column_stack(blocks)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        names = self.feature_names_in_ if input_features is None else input_features
        return np.array([f"{name}_{part}" for name in names for part in PARTS], dtype=object)


def moments_of(values: pd.Series[Any]) -> NDArray[np.datetime64]:
    """Datetimes, dates or ISO 8601 text as datetime64[us] in UTC, with NaT where a value is missing.

    The year may lie outside 1677 to 2262, the range of nanoseconds.  Raises ValueError for any other value.
    """
    if values.dtype.kind in "biufc":
        raise ValueError("numbers are not dates")
    try:
        try:
            moments = _in_utc(values)
        except pd.errors.OutOfBoundsDatetime:  # nine digits after the point are read as nanoseconds
            moments = _in_utc(values.map(_cut_to_us))
        return np.asarray(moments.dt.tz_localize(None).dt.as_unit("us").to_numpy())
    except (ValueError, TypeError) as wrong:
        raise ValueError(str(wrong).partition(" You might want to try")[0]) from None


def _in_utc(values: pd.Series[Any]) -> Any:
    return pd.to_datetime(values, utc=True, format=None if values.dtype.kind == "M" else "ISO8601")


def _cut_to_us(value: Any) -> Any:
    return FINER_THAN_US.sub("", value) if isinstance(value, str) else value


def _moments(X: Any) -> list[pd.DatetimeIndex]:
    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
    return [pd.DatetimeIndex(moments_of(frame.iloc[:, place])) for place in range(frame.shape[1])]


def _start_us(moments: pd.DatetimeIndex) -> float:
    """The earliest date in microseconds since 1970; 0 if the column has no date."""
    present = _since_us(moments.dropna())
    return float(present.min()) if len(present) else 0.0


def _parts(moments: pd.DatetimeIndex, start_us: float) -> NDArray[np.float64]:
    days = np.where(moments.isna(), np.nan, (_since_us(moments) - start_us) / DAY_US)
    return np.column_stack([moments.year, moments.month, moments.day_of_week, moments.hour, days]).astype(np.float64)


def _since_us(moments: pd.DatetimeIndex) -> NDArray[np.float64]:
    return moments.to_numpy().astype("int64").astype(np.float64)
