"""Configures Kafka clients (librdkafka), and reads topics without joining a group."""
