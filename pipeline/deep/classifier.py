"""The base of all deep classifiers: epochs, batches, early stopping, checkpoints, and weights as numpy arrays.

`torch_networks` and `keras_networks` build the networks from the hyperparameters wherever they are needed; then the
weights are set.  Files that a framework wrote are never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from pipeline.deep.epoch_state import Arrays, EpochState, EpochWatch
from pipeline.deep.frameworks import FRAMEWORKS
from pipeline.deep.shapes import row_shape

CLIPPED_AT = 3.0
"""In standard deviations; without it rare bright pixels cost a convolutional network two points on digits."""

Rows = NDArray[np.float32]
Codes = NDArray[np.int64]
Placed = Any
"""What a network makes of the rows to train on; only it knows the type."""


class Network(Protocol):
    """A framework's network with its optimizer.  Rows have the shape (n, *row_shape)."""

    def placed(self, rows: Rows, codes: Codes) -> Placed:
        """The rows to train on with their codes, on the network's device if they leave room for others there."""
        ...

    def fit_epoch(self, placed: Placed, order: NDArray[np.intp], batch_size: int, seed: int) -> float:
        """Train once over the rows at these places; return the mean loss.  Equal state and seed give equal weights."""
        ...

    def logits(self, rows: Rows) -> NDArray[np.float32]:
        """Logits of shape (n, classes), computed for some rows at a time."""
        ...

    def weights(self) -> Arrays: ...

    def weight_names(self) -> Sequence[str]:
        """Names by layer, in the order of `weights`."""
        ...

    def set_weights(self, weights: Arrays) -> None: ...

    def optimizer_state(self) -> Arrays: ...

    def set_optimizer_state(self, state: Arrays) -> None: ...


@dataclass(eq=False, repr=False)
class DeepClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier whose parameters are its dataclass fields; a subclass chooses the network.

    Fitted: `classes_`, `n_features_in_`, `weights_` (arrays in the network's order), `history_` (loss and, with early
    stopping, validation_loss of each epoch), `n_iter_` (epochs).
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    early_stopping: bool = False
    patience: int = 5
    validation_fraction: float = 0.1
    random_state: int = 0

    framework: ClassVar[str]
    builder: ClassVar[str]
    """The function in the framework's module that builds the network."""
    takes: ClassVar[Literal["table", "image", "sequence"]] = "table"

    def network(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """A new network for rows of this shape, with weights drawn from the seed."""
        build = getattr(FRAMEWORKS[self.framework].networks(), self.builder)
        built: Network = build(self, shape, n_classes)
        return built

    def fit(self, X: NDArray[Any], y: NDArray[Any], *, watch: EpochWatch | None = None) -> Self:
        """Fit the network.  X: (rows, features), finite, standardised; y: (rows,) labels.

        Raises RejectedError if the features do not have the network's shape, FloatingPointError if the loss becomes
        infinite or NaN, MemoryError.
        """
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.n_features_in_ = X.shape[1]
        rows, codes = self.as_rows(X), codes.astype(np.int64)
        fit_on, held_out = self._held_out(codes)
        with self._out_of_memory():
            network = self.network(rows.shape[1:], len(self.classes_))
            state = self._follow(network, rows, codes, fit_on, held_out, watch or EpochWatch())
        self.weights_ = list(state.best or state.weights)
        self.n_iter_ = state.epoch
        self.history_ = {"loss": state.losses, "validation_loss": state.validation_losses}
        network.set_weights(self.weights_)
        self._built = network
        return self

    def predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities of shape (rows, classes), in the order of `classes_`."""
        logits = self.live().logits(self.as_rows(X)).astype(np.float64)
        grown = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=1, keepdims=True))

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the framework's network, which no file may hold."""
        return {name: value for name, value in super().__getstate__().items() if name != "_built"}

    def live(self) -> Network:
        """The fitted network of the framework."""
        check_is_fitted(self, "weights_")
        if getattr(self, "_built", None) is None:
            shape = row_shape(self.takes, self.n_features_in_, getattr(self, "input_shape", None))
            self._built = self.network(shape, len(self.classes_))
            self._built.set_weights(self.weights_)
        return self._built

    def as_rows(self, X: Any) -> Rows:
        """Prepared rows (rows, features) in the network's shape, clipped."""
        shape = row_shape(self.takes, X.shape[1], getattr(self, "input_shape", None))
        rows = np.array(X, dtype=np.float32, order="C")
        return np.clip(rows, -CLIPPED_AT, CLIPPED_AT, out=rows).reshape(len(rows), *shape)

    @contextmanager
    def _out_of_memory(self) -> Iterator[None]:
        """Turn a framework's own out-of-memory error into MemoryError."""
        try:
            yield
        except Exception as error:
            if FRAMEWORKS[self.framework].networks().is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            raise

    def _held_out(self, codes: Codes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Places of the rows to fit on, and of the validation rows for early stopping: a share of each class."""
        order = np.random.default_rng(self.random_state).permutation(len(codes))
        if not self.early_stopping:
            return order, order[:0]
        held = np.zeros(len(codes), dtype=bool)
        for code in np.unique(codes):
            of_class = order[codes[order] == code]
            held[of_class[: int(self.validation_fraction * len(of_class))]] = True
        if not held.any():
            held[order[: max(1, int(self.validation_fraction * len(codes)))]] = True
        return order[~held[order]], order[held[order]]

    def _follow(
        self,
        network: Network,
        rows: Rows,
        codes: Codes,
        fit_on: NDArray[np.intp],
        held_out: NDArray[np.intp],
        watch: EpochWatch,
    ) -> EpochState:
        state = watch.resumed() or EpochState()
        if state.epoch:
            network.set_weights(state.weights)
            network.set_optimizer_state(state.optimizer)
        placed = network.placed(rows, codes)
        held_out_rows, held_out_codes = rows[held_out], codes[held_out]
        while state.epoch < self.epochs and not self._enough(state):
            seed = int(np.random.SeedSequence([self.random_state, state.epoch]).generate_state(1)[0])
            order = fit_on[np.random.default_rng([self.random_state, state.epoch]).permutation(len(fit_on))]
            loss = network.fit_epoch(placed, order, self.batch_size, seed)
            state.epoch += 1
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} after epoch {state.epoch}: try a learning_rate below {self.learning_rate:g}"
                )
            state.losses.append(loss)
            if len(held_out):
                self._validate(state, network, held_out_rows, held_out_codes)
            if watch.due():
                state.weights, state.optimizer = network.weights(), network.optimizer_state()
                watch.keep(state)
            watch.told(state.epoch, self.epochs, f"epoch {state.epoch:,} of {self.epochs:,}; loss {loss:.4f}")
        state.weights = network.weights()
        return state

    def _validate(self, state: EpochState, network: Network, rows: Rows, codes: Codes) -> None:
        loss = _cross_entropy(network.logits(rows), codes)
        state.validation_losses.append(loss)
        if loss < state.best_loss:
            state.best, state.best_loss, state.best_epoch = network.weights(), loss, state.epoch

    def _enough(self, state: EpochState) -> bool:
        return self.early_stopping and state.epoch - state.best_epoch >= self.patience and bool(state.epoch)


def _cross_entropy(logits: NDArray[np.float32], codes: Codes) -> float:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    of_all = np.log(np.exp(shifted).sum(axis=1))
    return float((of_all - shifted[np.arange(len(codes)), codes]).mean())
