"""Dates as numbers: the one transformer of preparation that scikit-learn does not have."""

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
    """Each date column becomes year, month, weekday (Monday is 0), hour, and days since the training minimum.

    Takes a frame or array of shape (rows, columns) of datetimes or ISO 8601 text, UTC where there is no zone, and
    gives float64 of shape (rows, 5 * columns) with NaN where a date is missing.
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
    """Datetimes, dates or ISO 8601 text as datetime64[us] in UTC, NaT where there is none: any year, not only those
    that nanoseconds hold (1677 to 2262).

    Raises ValueError for what is none of them.
    """
    if values.dtype.kind in "biufc":
        raise ValueError("numbers are no dates")
    try:
        try:
            moments = _in_utc(values)
        except pd.errors.OutOfBoundsDatetime:  # of text with nine digits after the point, which is read as nanoseconds
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
    """Microseconds since 1970; a column without a date starts there."""
    present = _since_us(moments.dropna())
    return float(present.min()) if len(present) else 0.0


def _parts(moments: pd.DatetimeIndex, start_us: float) -> NDArray[np.float64]:
    days = np.where(moments.isna(), np.nan, (_since_us(moments) - start_us) / DAY_US)
    return np.column_stack([moments.year, moments.month, moments.day_of_week, moments.hour, days]).astype(np.float64)


def _since_us(moments: pd.DatetimeIndex) -> NDArray[np.float64]:
    return moments.to_numpy().astype("int64").astype(np.float64)
