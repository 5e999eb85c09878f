"""One training from its request to its model file, and what is known of it before."""
