"""Bytes, spoiled: bits, spans, ends, and the lengths that Avro writes before strings, lists and maps."""

from __future__ import annotations

from random import Random

MAGIC = (b"", b"\x00", b"\xff" * 9, b"\x80" * 11 + b"\x01", b"{", b"PK\x03\x04", b"PAR1", b"Obj\x01", b"\xc3\x01")


def mutated(random: Random, data: bytes, most: int = 4) -> bytes:
    """One to `most` changes."""
    for _ in range(random.randint(1, most)):
        data = random.choice(_CHANGES)(random, data)
    return data


def varint(number: int) -> bytes:
    """As Avro writes an int or long, zigzag and seven bits a byte; of any size, also beyond 64 bits."""
    zigzag = number * 2 if number >= 0 else -number * 2 - 1
    parts = bytearray()
    while zigzag > 0x7F:
        parts.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*parts, zigzag])


def noise(random: Random, most: int = 200) -> bytes:
    """Bytes that are nothing."""
    return random.choice(MAGIC) + random.randbytes(random.randint(0, most))


def _bits(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _byte(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + random.choice((b"\0", b"\x01", b"\x7f", b"\x80", b"\xff", b'"', b"\n")) + data[place + 1 :]


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _span(random: Random, data: bytes) -> tuple[int, int]:
    begin = random.randrange(len(data) + 1)
    return begin, min(len(data), begin + random.choice((1, 2, 4, 8, 64, 512)))


def _removed(random: Random, data: bytes) -> bytes:
    begin, end = _span(random, data)
    return data[:begin] + data[end:]


def _doubled(random: Random, data: bytes) -> bytes:
    begin, end = _span(random, data)
    return data[:end] + data[begin:end] * random.choice((1, 1, 2, 100)) + data[end:]


def _inserted(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data) + 1)
    return data[:place] + noise(random, 16) + data[place:]


def _length(random: Random, data: bytes) -> bytes:
    """A number in place of a byte, such as a length may be."""
    place = random.randrange(len(data) + 1)
    number = random.choice((-1, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 2**63, 2**70))
    return data[:place] + varint(number) + data[place + 1 :]


def _fixed_length(random: Random, data: bytes) -> bytes:
    """Likewise of the four or eight bytes of zip archives and footers, little-endian."""
    size = random.choice((2, 4, 8))
    place = random.randrange(len(data) + 1)
    number: int = random.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63)) % 2 ** (8 * size)
    return data[:place] + number.to_bytes(size, "little") + data[place + size :]


_CHANGES = (_bits, _bits, _byte, _cut, _removed, _doubled, _inserted, _length, _fixed_length)
