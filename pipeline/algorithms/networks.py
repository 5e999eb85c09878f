"""The deep networks in the catalogue, by torch and Keras: classifiers of tables, images and sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.algorithms.algorithm import Algorithm, Late, Resolved, Takes
from pipeline.algorithms.hyperparameters import Boolean, Integer, Integers, Kind, Null, Number

SIZE = Integer(1, 10_000)
SHARE = Number(0, 1, high_open=True)
COMMON: Mapping[str, Sequence[Kind]] = {
    "epochs": (Integer(1, 10_000),),
    "batch_size": (Integer(1, 1_000_000),),
    "learning_rate": (Number(0, 10, low_open=True),),
    "early_stopping": (Boolean(),),
    "patience": (Integer(1, 10_000),),
    "validation_fraction": (Number(0, 1, low_open=True, high_open=True),),
}
LAYERS: Mapping[str, Sequence[Kind]] = {"hidden_layer_sizes": (Integers(SIZE, longest=20),), "dropout": (SHARE,)}
SHAPED: Mapping[str, Sequence[Kind]] = {"input_shape": (Integers(Integer(1, 100_000), longest=3), Null())}
CONVOLUTIONS: Mapping[str, Sequence[Kind]] = {
    "filters": (Integers(SIZE, longest=10),),
    "dense_size": (SIZE,),
    "dropout": (SHARE,),
    **SHAPED,
}


def _heads_fit(resolved: Resolved) -> None:
    width, heads = resolved["width"], resolved["heads"]
    assert isinstance(width, int)
    assert isinstance(heads, int)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, but {width} is not a multiple of {heads}")


def _network(
    name: str, description: str, estimator: str, own: Mapping[str, Sequence[Kind]], takes: Takes = "table", **rest: Any
) -> Algorithm:
    return Algorithm.of(
        name,
        description,
        "classification",
        Late("pipeline.deep.classifiers", estimator),
        overrides={**COMMON, **own},
        needs_dense=True,
        framework=name.partition("_")[0],
        takes=takes,
        trusted_types=[f"tensorfleet.model_types.{estimator}"],
        **rest,
    )


NETWORKS = (
    _network(
        "torch_logistic",
        "A linear layer trained by gradient descent (PyTorch); for tables too large for logistic_regression.",
        "TorchLogistic",
        {},
    ),
    _network(
        "torch_mlp",
        "A network of fully connected layers with dropout (PyTorch).",
        "TorchMLP",
        LAYERS,
    ),
    _network(
        "torch_cnn",
        "A convolutional network for images whose pixels are the columns (PyTorch).",
        "TorchCNN",
        CONVOLUTIONS,
        takes="image",
    ),
    _network(
        "torch_lstm",
        "A recurrent network for sequences whose steps lie side by side in the columns (PyTorch).",
        "TorchLSTM",
        {"hidden_size": (SIZE,), "layers": (Integer(1, 10),), **SHAPED},
        takes="sequence",
    ),
    _network(
        "torch_transformer",
        "A transformer for sequences whose steps lie side by side in the columns (PyTorch).",
        "TorchTransformer",
        {
            "width": (SIZE,),
            "heads": (Integer(1, 64),),
            "blocks": (Integer(1, 48),),
            "feed_forward_size": (SIZE,),
            "dropout": (SHARE,),
            **SHAPED,
        },
        takes="sequence",
        check=_heads_fit,
    ),
    _network(
        "keras_dnn",
        "A network of fully connected layers with dropout (Keras on TensorFlow).",
        "KerasDNN",
        LAYERS,
    ),
    _network(
        "keras_cnn",
        "A convolutional network for images whose pixels are the columns (Keras on TensorFlow).",
        "KerasCNN",
        CONVOLUTIONS,
        takes="image",
    ),
)
