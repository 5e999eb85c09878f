"""Reads and writes the Kafka records: framing, Avro, the schema registry, requests in, events out.

`codec` turns records into bytes and back; `requests` and `control` read incoming records; `outgoing` builds the events
from stored documents; `messages` adds keys and headers; `topics` names the topics.
"""
