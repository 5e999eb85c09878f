"""Turns the columns of a dataset into the numbers that an estimator is fitted on."""
