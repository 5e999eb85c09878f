"""Deep learning as scikit-learn classifiers; fitted weights are numpy arrays, frameworks are imported at use.

A process uses one framework: torch and TensorFlow crash in one process, in either order of import.
"""
