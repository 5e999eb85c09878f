"""What is fuzzed: one module a kind, each with a function that makes a case and hands it to the real code."""
