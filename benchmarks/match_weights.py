"""The weights of the brand match by logistic regression on labelled releases: see match.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd

from ingestion.errors import UserError
from ingestion.warehouse.target import Target

CANDIDATES = """
    select
        brand_name, list_position, movie_id, is_rerelease, title_cost::float8, vote_count,
        brand_affinity::float8, person_lack::float8, affinity_lack::float8, era_fit::float8,
        language_fit::float8,
        is_revenue_unknown, rival_count, is_open_below, score::float8,
        ln(estimated_gross_usd / expected_gross_usd)::float8 as surplus
    from intermediate.int_brand_releases__scored
    where release_source = 'release_list'
"""


def _is_unknown(rows: pd.DataFrame) -> pd.Series:
    return rows["surplus"].isna() | (rows["is_open_below"] & (rows["surplus"] < 0))


def _surplus(rows: pd.DataFrame) -> pd.Series:
    return rows["surplus"].where(~_is_unknown(rows), 0)


# What each weight of the variable brand_match applies to; the run stops when these do not give the
# scores of int_brand_releases__scored.
FEATURES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "constant": lambda rows: np.ones(len(rows)),
    "votes": lambda rows: np.log10(1 + rows["vote_count"]),
    "company_affinity": lambda rows: rows["brand_affinity"],
    "affinity_lack": lambda rows: rows["affinity_lack"],
    "person_lack": lambda rows: rows["person_lack"],
    "era_fit": lambda rows: rows["era_fit"],
    "language_fit": lambda rows: rows["language_fit"],
    "revenue_unknown": lambda rows: rows["is_revenue_unknown"],
    "title_cost": lambda rows: rows["title_cost"],
    "rivals": lambda rows: np.log(rows["rival_count"]),
    "surplus_unknown": _is_unknown,
    "surplus_above": lambda rows: _surplus(rows).clip(0, 4),
    "surplus_below": lambda rows: -_surplus(rows).clip(-5, 0),
}


def read_candidates(target: Target) -> pd.DataFrame:
    """Films that each release could be, with the evidence."""
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(CANDIDATES)
        return pd.DataFrame(cursor.fetchall(), columns=[c.name for c in cursor.description])


def fitted(
    folds: list[tuple[pd.DataFrame, pd.DataFrame]], brands: Sequence[str], shipped: dict[str, float]
) -> dict[str, float]:
    """Weights for the releases of some brands: films that are there, and others that are not.

    Raises:
        UserError: the features here are not those of the model.
    """
    rows = []
    for releases, candidates in folds:
        known = releases[releases["brand_name"].isin(brands)]
        joined = candidates.merge(
            known[["brand_name", "list_position", "labelled"]], on=["brand_name", "list_position"]
        )
        rows.append(joined[~joined["is_rerelease"]])
    x = features(rows[0])
    if np.abs(x @ np.array([shipped[name] for name in FEATURES]) - rows[0]["score"]).max() > 0.01:
        raise UserError(
            "FEATURES in benchmarks/match_weights.py are not those of int_brand_releases__scored.\n"
            "Bring the two in line."
        )
    all_rows = pd.concat(rows)
    is_right = (all_rows["movie_id"] == all_rows["labelled"]).to_numpy(float)
    share = np.repeat([1.0] + [1 / (len(rows) - 1)] * (len(rows) - 1), [len(part) for part in rows])
    weights = fit(features(all_rows), is_right, share)
    return dict(zip(FEATURES, weights.round(4).tolist(), strict=True))


def features(candidates: pd.DataFrame) -> np.ndarray:
    """What the weights apply to: a row for each candidate."""
    columns = [column_of(candidates) for column_of in FEATURES.values()]
    return np.column_stack(columns).astype(float)


def fit(x: np.ndarray, y: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression by Newton's method; all but the first drawn to zero."""
    weights, penalty = np.zeros(x.shape[1]), np.diag([0.01] + [1.0] * (x.shape[1] - 1))
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        curvature = (x * (share * chance * (1 - chance))[:, None]).T @ x + penalty
        weights += np.linalg.solve(curvature, x.T @ (share * (y - chance)) - penalty @ weights)
    return weights
