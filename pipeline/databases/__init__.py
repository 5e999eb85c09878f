"""MongoDB and SQLite as the stores use them."""
