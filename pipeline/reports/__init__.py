"""What a person reads of a model: pages, charts, comparisons, and the diagnostics behind them."""
