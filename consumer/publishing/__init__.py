"""What the worker tells Kafka: outcomes with their offsets, dead letters, progress, changes of aliases."""
