"""Searches for the best hyperparameters within the training part; the test part is not used.

All candidates are scored on the same folds, whose preparation is fitted once.  Scores are appended to a file as they
come, so that the next attempt of a killed training does not repeat them.
"""
