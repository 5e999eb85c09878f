"""Model files: written once, byte for byte the same, and read without executing anything in them."""
