"""Pages, charts and comparisons of models for people, and the diagnostics behind them."""
