"""Model files: written reproducibly, byte for byte, and read without executing anything in them."""
