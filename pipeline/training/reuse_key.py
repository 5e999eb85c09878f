"""A hash over everything that a result depends on: equal reuse keys give the same model, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict

import orjson

from pipeline import algorithms
from pipeline.datasets import Dataset
from pipeline.environment import versions
from pipeline.jobs import TrainingRequest, fields_of


def reuse_key(request: TrainingRequest, dataset: Dataset, machine: Mapping[str, str]) -> str:
    """A sha256 over data, columns, algorithm, hyperparameters with defaults, search, split, seed, versions and
    `machine`.

    `machine` describes what else the trainers compute with.  The user and the model's name do not count.  Raises
    RejectedError for wrong hyperparameters.
    """
    algorithm = algorithms.find(request.algorithm)
    on = {
        "dataset": dataset.fingerprint,
        "target": request.target_column or dataset.target_column,
        "features": request.features,
        "algorithm": [algorithm.name, algorithms.package_of(algorithm.name)],
        "hyperparameters": algorithm.resolve(request.hyperparameters, request.seed, alone=request.search is not None),
        "search": None if request.search is None else asdict(request.search),
        "evaluation": fields_of(request.evaluation),
        "seed": request.seed,
        "versions": {**versions(algorithm.framework), **machine},
    }
    return hashlib.sha256(orjson.dumps(on, option=orjson.OPT_SORT_KEYS)).hexdigest()
