"""The machine learning: jobs, datasets, algorithms, training, model files, and where results are kept.

Nothing here knows Kafka, Avro or HTTP; `consumer` brings requests in and carries results out.
"""
