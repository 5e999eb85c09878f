"""All that knows Kafka, Avro, HTTP, the command line and the settings."""
