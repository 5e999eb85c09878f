"""The bytes before an Avro body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.events.errors import UndecodableError
from consumer.events.framing import Fingerprint, SchemaId, SchemaReference, fingerprint_of, header, reference_in

references = st.one_of(
    st.builds(SchemaId, st.integers(0, 2**32 - 1)), st.builds(Fingerprint, st.integers(0, 2**64 - 1))
)


@given(references, st.binary(max_size=20))
def test_a_reference_is_read_back_whatever_follows(reference: SchemaReference, body: bytes) -> None:
    framed = header(reference) + body
    assert reference_in(framed) == reference
    assert framed[reference.header_bytes :] == body


@pytest.mark.parametrize(
    ("reference", "framed"),
    [(SchemaId(258), "0000000102"), (Fingerprint(0x63DD24E7CC258F8A), "c3018a8f25cce724dd63")],
    ids=str,
)
def test_the_bytes_are_those_of_the_specifications(reference: SchemaReference, framed: str) -> None:
    assert header(reference).hex() == framed


@pytest.mark.parametrize(
    ("schema", "number"),
    [({"type": "null"}, 0x63DD24E7CC258F8A), ({"type": "int"}, 0x7275D51A3F395C8F)],
    ids=["null", "int"],
)
def test_fingerprints_are_those_that_java_computes(schema: dict[str, str], number: int) -> None:
    assert fingerprint_of(schema) == Fingerprint(number)


def test_documentation_and_defaults_do_not_enter_a_fingerprint() -> None:
    field = {"name": "a", "type": ["null", "int"]}
    bare = {"type": "record", "name": "R", "namespace": "n", "fields": [field]}
    told = {**bare, "doc": "Told.", "fields": [{**field, "doc": "Told.", "default": None}]}
    assert fingerprint_of(bare) == fingerprint_of(told)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"", "is empty"),
        (b'{"request_id": "r-1"}', "looks like JSON"),
        (b' \n ["r-1"]', "looks like JSON"),
        (b"Obj\x01...", "container file"),
        (b"\x00\x00\x00", "cut off inside the Confluent header"),
        (b"\xc3\x01\x00", "cut off inside the single-object header"),
        (b"\xc3\x02" + bytes(8), "begins with c3 02"),
        (b"\xff\xfe", "begins with ff fe"),
    ],
)
def test_what_has_no_frame_is_told_what_it_looks_like(value: bytes, complaint: str) -> None:
    with pytest.raises(UndecodableError, match=complaint):
        reference_in(value)


@given(st.binary())
def test_any_bytes_have_a_reference_or_are_undecodable(value: bytes) -> None:
    try:
        reference = reference_in(value)
    except UndecodableError:
        return
    assert value.startswith(header(reference))
