"""Refuses models that would make scikit-learn or SciPy access memory outside their arrays.

At this point the types are trusted and the bytes are parsed; these checks look at indices that the model holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, issparse  # type: ignore[import-untyped]
from sklearn.base import BaseEstimator, is_classifier
from sklearn.neighbors._base import NeighborsBase
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm._base import BaseLibSVM
from sklearn.tree._tree import Tree

from pipeline.errors import CorruptArtifactError

OUTSIDE = "holds a decision tree with invalid indices"
KERNELS = ("linear", "poly", "rbf", "sigmoid")
"""The kernels on offer; any other would look up values in the rows to predict."""


def check_places(pipeline: Any) -> None:
    """Raises CorruptArtifactError if a fitted part has indices outside its arrays.

    scikit-learn and SciPy use a model's indices unchecked; one outside an array crashes the process.  Unfitted parts
    are skipped: preparation holds each of its parts twice, once unfitted.
    """
    parts = list(parts_of(pipeline))
    learned = {id(value) for part in parts for value in _rows_learned(part)}
    for part in parts:
        if isinstance(part, np.ndarray) and type(part) is not np.ndarray:
            raise CorruptArtifactError("holds an array of an unknown kind")
        if issparse(part):
            if id(part) not in learned or not _inside(part):
                raise CorruptArtifactError("holds a sparse matrix with invalid indices")
        elif isinstance(part, BaseEstimator):
            _check_trees(part)
            if isinstance(part, NeighborsBase) and hasattr(part, "_fit_X"):
                _check_neighbors(part)
            if isinstance(part, BaseLibSVM) and hasattr(part, "support_vectors_") and not _supported(part):
                raise CorruptArtifactError("has invalid support vector indices")
            if isinstance(part, OneHotEncoder) and hasattr(part, "categories_") and not _encodes(part):
                raise CorruptArtifactError("has invalid category indices")
            vocabulary = getattr(part, "vocabulary_", {})
            if not all(0 <= place < len(vocabulary) for place in vocabulary.values()):
                raise CorruptArtifactError("has invalid vocabulary indices")


def _check_trees(model: Any) -> None:
    for estimator in (model, *np.ravel(getattr(model, "estimators_", []))):
        tree = getattr(estimator, "tree_", None)
        if isinstance(tree, Tree) and not _closed(tree, model.n_features_in_):
            raise CorruptArtifactError(OUTSIDE)
    for predictor in (one for round_ in getattr(model, "_predictors", ()) for one in round_):
        if not _closed_nodes(predictor.nodes, model.n_features_in_):
            raise CorruptArtifactError(OUTSIDE)


def _check_neighbors(model: Any) -> None:
    if model._fit_X.ndim != 2 or model._fit_X.shape[1] != model.n_features_in_:
        raise CorruptArtifactError("has neighbours with another number of features than the model")
    if is_classifier(model) and not _labelled(model):
        raise CorruptArtifactError("has invalid indices of neighbours' labels")


def parts_of(pipeline: Any) -> Iterator[Any]:
    """Every object in the pipeline at any depth, except plain text and numbers."""
    waiting, seen = [pipeline], {id(pipeline)}
    while waiting:
        one = waiting.pop()
        yield one
        for part in _held(one):
            if id(part) not in seen and not isinstance(part, str | int | float | None):
                seen.add(id(part))
                waiting.append(part)


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set):
        return value
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype == object else ()
    return vars(value).values() if hasattr(value, "__dict__") else ()


def _closed(tree: Any, n_features: int) -> bool:
    if not tree.node_count or tree.n_features != n_features:
        return False
    inner = tree.children_left != -1
    places = np.flatnonzero(inner)
    children = np.stack([tree.children_left[inner], tree.children_right[inner]])
    ahead = (children > places).all() and (children < tree.node_count).all()
    return bool(ahead and (tree.feature[inner] >= 0).all() and (tree.feature[inner] < tree.n_features).all())


def _labelled(model: Any) -> bool:
    labels = model._y
    whole = labels.dtype.kind == "i" and labels.ndim == 1 and len(labels) == model._fit_X.shape[0]
    return bool(whole and (labels >= 0).all() and (labels < len(model.classes_)).all())


def _rows_learned(model: Any) -> list[Any]:
    """The attributes that our estimators may keep sparse; any other sparse matrix, a few bytes long, could be of any
    width.
    """
    if isinstance(model, NeighborsBase):
        return [getattr(model, "_fit_X", None)]
    names = ("support_vectors_", "dual_coef_", "_dual_coef_") if isinstance(model, BaseLibSVM) else ()
    return [getattr(model, name, None) for name in names]


def _inside(matrix: Any) -> bool:
    """Whether the indices are valid; SciPy's own check misses a matrix that ends at 0 and decreases beyond 32 bits."""
    if type(matrix) is not csr_matrix:
        return False
    matrix.check_format(full_check=True)
    return bool((matrix.indptr[:-1] <= matrix.indptr[1:]).all())


def _supported(model: Any) -> bool:
    """Whether the arrays have all values that LIBSVM reads for each support vector and pair of classes.

    LIBSVM defines the counts only for classifiers.
    """
    vectors, counts, coefficients = model.support_vectors_, model._n_support, model._dual_coef_
    n_vectors, n_classes = vectors.shape[0], len(counts)
    n_pairs = n_classes * (n_classes - 1) // 2
    n_probabilities = n_pairs if getattr(model, "_effective_probability", False) else 0
    counted = model._impl not in ("c_svc", "nu_svc") or ((counts >= 0).all() and counts.sum() == n_vectors)
    shaped = vectors.shape[1] == model.n_features_in_ and coefficients.shape == (n_classes - 1, n_vectors)
    full = not issparse(coefficients) or coefficients.nnz == (n_classes - 1) * n_vectors
    paired = len(model._intercept_) == n_pairs and len(model.support_) == n_vectors
    likely = len(model._probA) == len(model._probB) == n_probabilities
    return bool(counted and shaped and full and paired and likely and model.kernel in KERNELS)


def _encodes(encoder: Any) -> bool:
    """Whether each category maps to its own column or that of infrequent ones; our encoders never drop one."""
    widths = encoder._compute_n_features_outs()
    mappings = getattr(encoder, "_default_to_infrequent_mappings", None) or [None] * len(widths)
    if encoder._drop_idx_after_grouping is not None or widths != list(encoder._n_features_outs):
        return False
    return all(
        width == len(categories) if columns is None else ((columns >= 0) & (columns < width)).all()
        for width, categories, columns in zip(widths, encoder.categories_, mappings, strict=True)
    )


def _closed_nodes(nodes: Any, n_features: int) -> bool:
    """Like `_closed`, for a boosted tree; ours never split by categories, whose tables lie elsewhere."""
    inner = nodes[nodes["is_leaf"] == 0]
    places = np.flatnonzero(nodes["is_leaf"] == 0)
    children = np.stack([inner["left"], inner["right"]]).astype(np.int64)
    ahead = (children > places).all() and (children < len(nodes)).all()
    known = (inner["feature_idx"] >= 0).all() and (inner["feature_idx"] < n_features).all()
    return bool(len(nodes) and ahead and known and not inner["is_categorical"].any())
