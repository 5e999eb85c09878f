"""Sends to Kafka: outcomes with their offsets, dead letters, progress events, changes of aliases."""
