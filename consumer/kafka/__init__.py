"""Clients of Kafka: how librdkafka is configured, and reading a topic from the outside."""
