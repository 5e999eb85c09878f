"""Deep learning as scikit-learn classifiers: what is fitted is numpy arrays, and the framework is imported at use.

A process holds one framework: torch crashes where TensorFlow is, in either order of their imports.
"""
