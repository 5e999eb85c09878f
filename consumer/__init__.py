"""Holds all code that knows Kafka, Avro, HTTP, the command line or the settings."""
