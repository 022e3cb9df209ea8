"""Section 6: control frames, as pairs of a name and a dictionary."""

from .primitives import Reader, Refused, text, varint

NAME_BYTES_MAX = 255
TEXT_BYTES_MAX = 1024
CAPACITY_MAX = 1 << 32

MODES = ["Credit", "Rendezvous", "Lease", "Demand", "Cast"]
REFUSALS = [
    "NotAvailable", "Denied", "TypeMismatch", "CodecMismatch", "WrongDirection", "LimitReached", "Declined",
]  # fmt: skip
# WIRE-10: purpose, and whether the opener receives.
PURPOSES = {1: ("deliveries", True), 2: ("acks", False), 3: ("outcomes", True), 4: ("subscription", True)}


class Field:
    """How one field is read and written."""

    def __init__(self, read, write):
        self.read, self.write = read, write


def bounded(read, fits, what):
    def checked(reader):
        value = read(reader)
        if not fits(value):
            raise Refused(what)
        return value

    return checked


def one_of(names):
    def read(reader):
        index = reader.u8()
        if index >= len(names):
            raise Refused("undefined value")
        return names[index]

    return Field(read, lambda name: bytes([names.index(name)]))


def read_refusal(reader):
    """WIRE-12: a code that is not known reads as Declined."""
    code = reader.u8()
    return REFUSALS[code] if code < len(REFUSALS) else "Declined"


ID = Field(bounded(lambda r: r.varint(32), lambda id: id > 0, "the control channel is no channel"), varint)
NUMBER = Field(lambda r: r.varint(), varint)
U32 = Field(lambda r: r.varint(32), varint)
U16 = Field(lambda r: r.varint(16), varint)
BOOLEAN = Field(bounded(lambda r: r.varint(), lambda value: value < 2, "not a boolean"), varint)
MAC = Field(lambda r: r.bytes(48), bytes)
NAME = Field(bounded(lambda r: r.text(NAME_BYTES_MAX), bool, "an empty name"), text)
TEXT = Field(lambda r: r.text(TEXT_BYTES_MAX), text)
CAPACITY = Field(bounded(lambda r: r.varint(), lambda value: value <= CAPACITY_MAX, "capacity"), varint)
FLAGS = Field(bounded(lambda r: r.u8(), lambda flags: flags < 8, "undefined flags"), lambda flags: bytes([flags]))
MODE = one_of(MODES)
REFUSAL = Field(read_refusal, lambda name: bytes([REFUSALS.index(name)]))

CLOSE = {"id": ID, "final_seq": NUMBER, "code": U16, "reason": TEXT}
LIMITS = {"limit": NUMBER, "limit_bytes": NUMBER}
FRAMES = {
    0x01: ("CONFIRM", {"mac": MAC}),
    0x02: ("OPEN", None),
    0x03: ("ACCEPT", {"id": ID, "mode": MODE, "capacity": CAPACITY, "limit_bytes": NUMBER}),
    0x04: ("REFUSE", {"id": ID, "code": REFUSAL, "reason": TEXT}),
    0x05: ("ANNOUNCE", {"name": NAME, "label": TEXT, "codec": TEXT, "flags": FLAGS, "capacity": CAPACITY}),
    0x10: ("WINDOW", {"id": ID, "generation": U32, "received": NUMBER, "taken": NUMBER, **LIMITS}),
    0x11: ("WANT", {"id": ID, "limit": NUMBER}),
    0x12: ("RECALL", {"id": ID, "generation": U32, "limit": NUMBER, "rewind": BOOLEAN}),
    0x13: ("YIELD", {"id": ID, "generation": U32, "limit": NUMBER, "committed": NUMBER}),
    0x14: ("POLL", {"id": ID}),
    0x15: ("CALL_BACK", {"id": ID, "generation": U32}),
    0x16: ("CLOSING", {"id": ID, "code": U16, "reason": TEXT}),
    0x18: ("CLOSE", CLOSE),
    0x19: ("RESET", CLOSE),
    0x1A: ("WITHDRAW", {"id": ID, "seq": NUMBER}),
    0x1B: ("WITHDRAWN", {"id": ID, "seq": NUMBER, "withdrawn": BOOLEAN}),
    0x28: (
        "POS",
        {"id": ID, "generation": U32, "next_expected": NUMBER, "taken": NUMBER, **LIMITS, "committed": NUMBER},
    ),
    0x30: ("PING", {"nonce": NUMBER}),
    0x31: ("PONG", {"nonce": NUMBER}),
    0x32: ("GOAWAY", {"code": U16, "reason": TEXT}),
}
TYPES = {name: (kind, fields) for kind, (name, fields) in FRAMES.items()}
OPEN_START = {"id": ID, "name": NAME, "label": TEXT, "codec": TEXT, "flags": FLAGS}


def read_open(r):
    """WIRE-10."""
    frame = {name: field.read(r) for name, field in OPEN_START.items()}
    flags = frame.pop("flags")
    receives = frame["receives"] = flags & 1 != 0
    if flags & 2:
        frame["fingerprint"] = r.bytes(16)
    frame |= {"capacity": CAPACITY.read(r), "limit_bytes": NUMBER.read(r)}
    if flags & 4:
        purpose, direction = PURPOSES.get(r.u8(), (None, None))
        if direction != receives:
            raise Refused("purpose")
        frame["purpose"] = purpose
        if purpose in ("acks", "outcomes"):
            frame["of"] = ID.read(r)
        if purpose == "subscription":
            frame["when_slow"] = r.u8()
            if frame["when_slow"] > 2:
                raise Refused("when_slow")
    return frame


def write_open(frame):
    flags = frame["receives"] + 2 * ("fingerprint" in frame) + 4 * ("purpose" in frame)
    out = b"".join(field.write({**frame, "flags": flags}[name]) for name, field in OPEN_START.items())
    out += frame.get("fingerprint", b"") + varint(frame["capacity"]) + varint(frame["limit_bytes"])
    if "purpose" in frame:
        out += bytes(code for code, (name, _) in PURPOSES.items() if name == frame["purpose"])
        out += varint(frame["of"]) if "of" in frame else b""
        out += bytes([frame["when_slow"]]) if "when_slow" in frame else b""
    return out


def read(data):
    """WIRE-2 and WIRE-3: the first frame and what is behind it. A frame that may be skipped is named None."""
    r = Reader(data)
    kind = r.u8()
    fields = Reader(r.bytes(r.varint()))
    if kind >= 0x80:
        return (None, {}), r.rest
    if kind not in FRAMES:
        raise Refused("an unknown frame")
    name, layout = FRAMES[kind]
    frame = {field: how.read(fields) for field, how in layout.items()} if layout else read_open(fields)
    fields.end()
    # WIRE-14
    if name == "ACCEPT" and (frame["mode"], frame["capacity"] > 0) in (
        ("Credit", False), ("Cast", False), ("Rendezvous", True),
    ):  # fmt: skip
        raise Refused("a capacity that the mode does not have")
    return (name, frame), r.rest


def write(name, frame):
    kind, layout = TYPES[name]
    body = b"".join(how.write(frame[field]) for field, how in layout.items()) if layout else write_open(frame)
    return bytes([kind]) + varint(len(body)) + body


def read_all(data):
    """Every frame of a record of the control channel, each with its bytes."""
    frames = []
    while data:
        frame, rest = read(data)
        frames.append((*frame, data[: len(data) - len(rest)]))
        data = rest
    return frames
