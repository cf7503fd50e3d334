"""Changes files at random: by bytes, and by the structure of JSON."""

import json
import random
import struct

SEVERAL = 8  # corrupt bytes at most
ODD = [None, True, 0, -1, 1, 3, 10**6, 10**18, 10**30, 0.5, -2.5, 1e308, "", "x", "1", "--output_file=x", "\x1b[2J"]
ODD += [[], [1], ["a", "--serve"], [[1]], {}, {"a": 1}, "../../etc/passwd", "/dev/zero", "a" * 5000, "(.*)*x"]
RAW = [b"", b"{", b"[]", b"null", b'"x"', b"[" * 5000, b"\xff\xfe", b"NaN", b"<!doctype html>"]


def interesting_places(data: bytes) -> list[int]:
    """Where the structure of the file is: outside of the numbers, which may be anything."""
    return [*range(min(len(data), 1500)), *range(max(len(data) - 3000, 0), len(data))]


def corrupted(draw: random.Random, data: bytes) -> bytes:
    """The file cut, with other bytes, with huge or negative sizes, with a part twice, missing or elsewhere."""
    changed = bytearray(data)
    places = interesting_places(data)
    how = draw.randrange(6)
    if how == 0:
        return bytes(changed[: draw.randrange(len(changed))])
    if how == 1:
        for _ in range(draw.randint(1, SEVERAL)):
            changed[draw.choice(places)] = draw.randrange(256)
    elif how == 2:
        for _ in range(draw.randint(1, SEVERAL)):
            changed[draw.choice(places)] ^= 1 << draw.randrange(8)
    elif how == 3:
        size = draw.choice([-1, -(2**31), 2**31 - 1, 2**40, 2**62, 2**63 - 1, 0])
        form = draw.choice(["<q", ">q", "<i", "<h"])
        width = struct.calcsize(form)
        place = draw.choice(places[: -width or None])
        changed[place : place + width] = struct.pack("<q", size)[:width]
    elif how == 4:
        first, second = sorted(draw.choices(places, k=2))
        part = changed[first : first + draw.randint(1, 200)]
        changed[second : second + draw.choice([0, len(part)])] = part
    else:
        start = draw.choice(places)
        del changed[start : start + draw.randint(1, 200)]
    return bytes(changed)


def mutated_json(draw: random.Random, data: bytes) -> bytes:
    """A JSON file with one entry, somewhere in it, replaced, added, doubled or taken away; or something else."""
    if draw.random() < 0.15:
        return draw.choice(RAW)
    content = json.loads(data)
    places = [(content, name) for name in content]
    places += [(value, name) for value in content.values() if isinstance(value, dict) for name in value]
    holder, name = draw.choice(places)
    match draw.randrange(5):
        case 0:
            del holder[name]
        case 1:
            holder[draw.choice(["output_file", "x", "\x1b]0;a\x07", "auto_map", "num_beams"])] = draw.choice(ODD)
        case 2:
            text = json.dumps(content)
            return text[:-1].encode() + f", {json.dumps(name)}: {json.dumps(draw.choice(ODD))}}}".encode()
        case _:
            holder[name] = draw.choice(ODD)
    return json.dumps(content).encode()


def mutated_safetensors(draw: random.Random, data: bytes) -> bytes:
    """A safetensors file whose header is changed as JSON, or whose length of it is."""
    (length,) = struct.unpack("<Q", data[:8])
    if draw.random() < 0.2:
        return struct.pack("<Q", draw.choice([0, 1, length - 1, length + 1, 2**24 + 1, 2**63, 2**64 - 1])) + data[8:]
    header = mutated_json(draw, data[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
