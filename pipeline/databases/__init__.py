"""MongoDB, S3 and SQLite as the stores use them."""
