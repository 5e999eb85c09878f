"""Exports our own types under the names that model files use.

A name that a release has used must stay here: stored files contain it, and MLflow imports it.
"""

from pipeline.deep.classifiers import KerasCNN, KerasDNN, TorchCNN, TorchLogistic, TorchLSTM, TorchMLP, TorchTransformer
from pipeline.features.dates import DateFeatures

__all__ = [
    "DateFeatures",
    "KerasCNN",
    "KerasDNN",
    "TorchCNN",
    "TorchLSTM",
    "TorchLogistic",
    "TorchMLP",
    "TorchTransformer",
]
