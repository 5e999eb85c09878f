"""What goes over the wire: framing, Avro, the schema registry, and each record's way in and out.

`codec` turns records into bytes and back; `requests` and `control` read what comes in; `outgoing` builds the events
from stored documents; `messages` gives them keys and headers; `topics` names where they go.
"""
