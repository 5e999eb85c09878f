"""The names of our own types in model files.

A name that a release has written stays here for ever: files that are stored hold it, and MLflow imports it.
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
