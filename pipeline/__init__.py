"""The machine learning: jobs, datasets, algorithms, training, model files, and the stores of results.

Nothing here knows Kafka, Avro or HTTP; `consumer` brings requests in and carries results out.
"""
