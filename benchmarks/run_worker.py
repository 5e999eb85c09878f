"""`tensorfleet worker`, with settings from the environment alone."""

from __future__ import annotations

from consumer import logs
from consumer.app import run_worker
from consumer.settings import load_settings

if __name__ == "__main__":
    settings = load_settings(env_file=None)
    logs.configure(settings.log_level, settings.log_format)
    logs.log_uncaught()
    run_worker(settings)
