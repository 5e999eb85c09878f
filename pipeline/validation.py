"""Checks a request before its data is read.

The parent calls this before it claims a request, so that an invalid one costs no trainer.  Checks that need the rows
are in `pipeline.features.examples`, which runs in the trainer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import orjson

from pipeline import algorithms
from pipeline.algorithms import Algorithm
from pipeline.algorithms.hyperparameters import shown
from pipeline.deep.frameworks import FRAMEWORKS
from pipeline.errors import RejectedError, said_by
from pipeline.jobs import NAME, Evaluation, TrainingRequest
from pipeline.search import checks

LONGEST_REQUEST_ID = 120
LONGEST_TAG = 1_000
LONGEST_MESSAGE = 4_000
MOST_TAGS = 100
FEWEST_FOLDS, MOST_FOLDS = 2, 20
LONGEST_COLUMN = 1_000
MOST_FEATURES = 20_000
LARGEST_SEED = 2**32 - 1
LARGEST_REQUEST_BYTES = 114_688
"""The largest request as JSON: one datagram to a trainer (131,072 bytes) less what is sent with it."""


def check(request: TrainingRequest) -> None:
    """Raises RejectedError that lists everything wrong with the request, and what would be right.

    A request that is too large is not checked further, which bounds the cost.
    """
    _check_size(request)
    wrong = [*_names(request), *_evaluation(request.evaluation), *_limits(request), *_tags(request.tags)]
    wrong += _columns(request.target_column, request.features)
    try:
        algorithm = algorithms.find(request.algorithm)
        wrong += _framework(algorithm)
        if request.search is not None:
            wrong += checks.check(request.search, algorithm, request.hyperparameters)
        algorithm.resolve(request.hyperparameters, request.seed, alone=request.search is not None)
    except RejectedError as rejected:
        wrong.append(str(rejected))
    if wrong:
        message = "; ".join(wrong)
        raise RejectedError(message if len(message) <= LONGEST_MESSAGE else f"{message[: LONGEST_MESSAGE - 1]}…")


def _check_size(request: TrainingRequest) -> None:
    try:
        size = len(orjson.dumps(request, default=dict))
    except (TypeError, ValueError, RecursionError) as error:
        raise RejectedError(f"the request cannot be written as JSON: {said_by(error)}") from error
    if size > LARGEST_REQUEST_BYTES:
        raise RejectedError(
            f"the request has {size:,} bytes as JSON; at most {LARGEST_REQUEST_BYTES:,} can be trained. Shorten names "
            "or lists, or leave out features to use all columns but the target"
        )


def _framework(algorithm: Algorithm) -> list[str]:
    if not algorithm.framework or FRAMEWORKS[algorithm.framework].installed:
        return []
    return [f"{algorithm.name} needs a worker with the extra {algorithm.framework}, which this one does not have"]


def _names(request: TrainingRequest) -> list[str]:
    wrong = []
    if not 1 <= len(request.request_id) <= LONGEST_REQUEST_ID:
        wrong.append(f"request_id takes 1 to {LONGEST_REQUEST_ID} characters, not {len(request.request_id)}")
    for field in ("project", "model_name", "job_name", "dataset_name"):
        name = getattr(request, field)
        if not NAME.fullmatch(name):
            wrong.append(f"{field} takes 1 to 128 characters of A-Z a-z 0-9 . _ -, not {shown(name)}")
    return wrong


def _evaluation(evaluation: Evaluation) -> list[str]:
    wrong = []
    if not 0 < evaluation.test_size < 1:
        wrong.append(f"evaluation.test_size takes a share above 0 and below 1, not {evaluation.test_size}")
    if evaluation.cv is not None and not FEWEST_FOLDS <= evaluation.cv <= MOST_FOLDS:
        wrong.append(f"evaluation.cv takes {FEWEST_FOLDS} to {MOST_FOLDS} folds, not {evaluation.cv}")
    if evaluation.group_column is not None and evaluation.time_column is not None:
        wrong.append("evaluation takes a group_column or a time_column, not both")
    if evaluation.time_gap is not None and evaluation.time_gap < 0:
        wrong.append(f"evaluation.time_gap takes a number of rows from 0, not {evaluation.time_gap}")
    if evaluation.time_gap and evaluation.time_column is None:
        wrong.append("evaluation.time_gap needs a time_column, by which the rows are split")
    for field in ("group_column", "time_column"):
        wrong += _column(f"evaluation.{field}", getattr(evaluation, field))
    return wrong


def _limits(request: TrainingRequest) -> list[str]:
    wrong = []
    time_s, memory_bytes = request.max_training_time_s, request.max_memory_bytes
    if time_s is not None and not (0 < time_s < math.inf):
        wrong.append(f"max_training_time_s takes seconds above 0, not {time_s}")
    if memory_bytes is not None and memory_bytes <= 0:
        wrong.append(f"max_memory_bytes takes bytes above 0, not {memory_bytes}")
    if not 0 <= request.seed <= LARGEST_SEED:
        wrong.append(f"seed takes an integer from 0 to {LARGEST_SEED:,}, not {request.seed}")
    return wrong


def _tags(tags: Mapping[str, str]) -> list[str]:
    wrong = [f"tag {shown(name)} takes a name of A-Z a-z 0-9 . _ -" for name in tags if not NAME.fullmatch(name)]
    too_long = [name for name, text in tags.items() if len(text) > LONGEST_TAG]
    wrong += [f"tag {shown(name)} takes at most {LONGEST_TAG:,} characters" for name in too_long]
    if len(tags) > MOST_TAGS:
        wrong.append(f"a request takes at most {MOST_TAGS} tags, not {len(tags)}")
    return wrong


def _columns(target: str | None, features: Sequence[str] | None) -> list[str]:
    wrong = _column("target_column", target)
    if features is None:
        return wrong
    if not features:
        wrong.append("features lists no column; leave it out to use all but the target")
    if len(features) > MOST_FEATURES:
        wrong.append(f"features takes at most {MOST_FEATURES:,} columns, not {len(features):,}")
    for name in features:
        wrong += _column("features", name)
    if twice := sorted(name for name, times in Counter(features).items() if times > 1):
        wrong.append(f"features lists {', '.join(twice)} more than once")
    if target is not None and target in features:
        wrong.append(f"the target {shown(target)} is among the features; a model must not see what it is to predict")
    return wrong


def _column(field: str, name: str | None) -> list[str]:
    if name is None or 1 <= len(name) <= LONGEST_COLUMN:
        return []
    return [f"{field} takes names of 1 to {LONGEST_COLUMN:,} characters, not {len(name):,}"]
