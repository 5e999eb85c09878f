"""The only port: /health, /livez and /metrics."""
