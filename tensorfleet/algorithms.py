"""What a package needs that adds an algorithm to the catalogue: see examples/own_algorithm."""

from pipeline.algorithms import Algorithm
from pipeline.algorithms.hyperparameters import Boolean, Choice, Hyperparameter, Integer, Integers, Null, Number

__all__ = ["Algorithm", "Boolean", "Choice", "Hyperparameter", "Integer", "Integers", "Null", "Number"]
