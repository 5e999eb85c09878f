"""What becomes of a dataset's columns before an estimator sees them."""
