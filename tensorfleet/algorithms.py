"""Exports what a package needs to add an algorithm to the catalogue: see examples/own_algorithm."""

from pipeline.algorithms import Algorithm
from pipeline.algorithms.hyperparameters import Boolean, Choice, Hyperparameter, Integer, Integers, Null, Number

__all__ = ["Algorithm", "Boolean", "Choice", "Hyperparameter", "Integer", "Integers", "Null", "Number"]
