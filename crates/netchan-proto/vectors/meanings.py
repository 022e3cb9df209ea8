"""What each vector means, in words of the specification: written by hand, lest a decoder agree with itself alone."""

# Of header_mask.txt: length, channel, flags.
HEADERS = {
    "control": (16, 0, 0),
    "first": (1_000, 1, 0),
    "longest": (65_552, 2**32 - 1, 1),
    "phase": (24, 0x01020304, 1),
}

NAMES = {"name": "tasks", "label": "Task", "codec": "postcard"}
SENDS = {"id": 3, **NAMES, "receives": False, "capacity": 0, "limit_bytes": 0}
RECEIVES = {"id": 70_000, **NAMES, "receives": True, "capacity": 64, "limit_bytes": 524_288}
FINGERPRINT = {"fingerprint": b"\xf1" * 16}


def accept(mode, capacity):
    return ("ACCEPT", {"id": 3, "mode": mode, "capacity": capacity, "limit_bytes": 524_288})


def close(reason):
    return {"id": 3, "final_seq": 300, "code": 256, "reason": reason}


FRAMES = {
    "confirm": ("CONFIRM", {"mac": bytes(range(48))}),
    "open-sends": ("OPEN", SENDS),
    "open-receives": ("OPEN", {**RECEIVES, **FINGERPRINT}),
    "open-deliveries": ("OPEN", {**RECEIVES, "purpose": "deliveries"}),
    "open-acks": ("OPEN", {**SENDS, "purpose": "acks", "of": 70_000}),
    "open-outcomes": ("OPEN", {**RECEIVES, **FINGERPRINT, "purpose": "outcomes", "of": 70_000}),
    "open-subscription": ("OPEN", {**RECEIVES, "purpose": "subscription", "when_slow": 2}),
    "accept-credit": accept("Credit", 64),
    "accept-rendezvous": accept("Rendezvous", 0),
    "accept-lease": accept("Lease", 64),
    "accept-demand": accept("Demand", 64),
    "accept-cast": accept("Cast", 64),
    "refuse": ("REFUSE", {"id": 3, "code": "TypeMismatch", "reason": "u64"}),
    # The peer may receive (1), it is hosted (4).
    "announce": ("ANNOUNCE", {**NAMES, "flags": 5, "capacity": 64}),
    "window": (
        "WINDOW",
        {"id": 3, "generation": 1, "received": 200, "taken": 130, "limit": 194, "limit_bytes": 1_048_576},
    ),
    "want": ("WANT", {"id": 3, "limit": 16_384}),
    "poll": ("POLL", {"id": 3}),
    "call-back": ("CALL_BACK", {"id": 3, "generation": 2}),
    "closing": ("CLOSING", {"id": 3, "code": 300, "reason": "stop"}),
    "recall": ("RECALL", {"id": 3, "generation": 2, "limit": 127, "rewind": 0}),
    "recall-rewind": ("RECALL", {"id": 3, "generation": 2, "limit": 127, "rewind": 1}),
    "yield": ("YIELD", {"id": 3, "generation": 2, "limit": 128, "committed": 127}),
    "close": ("CLOSE", close("")),
    "close-long-reason": ("CLOSE", close("é" * 70)),
    "reset": ("RESET", close("stop")),
    "withdraw": ("WITHDRAW", {"id": 3, "seq": 9}),
    "withdrawn": ("WITHDRAWN", {"id": 3, "seq": 9, "withdrawn": 1}),
    "pos": (
        "POS",
        {"id": 3, "generation": 1, "next_expected": 2, "taken": 3, "limit": 4, "limit_bytes": 5, "committed": 6},
    ),
    "ping": ("PING", {"nonce": 2**64 - 1}),
    "pong": ("PONG", {"nonce": 1}),
    "goaway": ("GOAWAY", {"code": 1, "reason": "bye"}),
}


def head(seq, ack_now=False, redelivered=False, **place):
    return {"seq": seq, "ack_now": ack_now, "redelivered": redelivered, **place}


# Trailers alone, of frames.txt.
TRAILERS = {
    "data-items": head(300),
    "data-items-ack": head(2**64 - 1, ack_now=True),
    "data-fragment": head(300, total=70_000, offset=65_519),
    "data-fragment-ack": head(300, ack_now=True, total=70_000, offset=65_519),
}

VALUES = {
    "record-of-several": head(300, items=[b"", b"a", b"\x55" * 130]),
    "record-flags": head(2**64 - 1, True, True, items=[b"\7\x08\x09"]),
    "record-part-first": head(300, total=20, offset=0, part=b"\1" * 8),
    "record-part-last": head(300, True, total=20, offset=8, part=b"\2" * 12),
    "record-part-empty": head(300, redelivered=True, total=0, offset=0, part=b""),
    "ask-done": {"token": 0, "ask": "done", "number": 300},
    "ask-back": {"token": 1_000, "ask": "back", "number": 1, "delay": 0},
    "ask-extend": {"token": 2**64 - 1, "ask": "extend", "number": 2**64 - 1, "millis": 60_000},
    "ask-result": {"token": 1, "ask": "result", "number": 2, "results": 70_000, "value": b"a result"},
    "outcome-done": {"outcome": "done", "token": 9},
    "outcome-fenced": {"outcome": "fenced", "token": 300},
    "outcome-closed": {"outcome": "results closed", "token": 1},
    "outcome-none": {"outcome": "no results", "token": 1},
    "outcome-was-fenced": {"outcome": "was fenced", "number": 2**40},
    "delivery-first": {"attempts": 0, "redelivered": False, "value": b"a task"},
    "delivery-again": {"attempts": 2**32 - 1, "redelivered": True, "value": b"a task"},
    "broadcast-value": {"value": b"a setting"},
    "broadcast-lost": {"lost": 70_000},
}


def counting(start, count):
    return bytes((start + at) % 256 for at in range(count))


HELLO = {"version": 1, "aes_hardware": True, "message_bytes_max": 2**26, "agent": "netchan/0.1.0"}
WELCOME = {
    "session_id": counting(1, 16),
    "incarnation": 0x0102030405060708,
    "epoch": 0,
    "aead": "aes",
    "resumed": False,
    "message_bytes_max": 2**26,
    "channels_max": 65_536,
    "agent": "netchan/0.1.0",
}
MESSAGES = {
    "hello-new": HELLO,
    "hello-without-aes": {**HELLO, "aes_hardware": False, "agent": ""},
    "hello-resume": {
        **HELLO,
        "agent": "é",
        "resume": {"session_id": counting(1, 16), "last_epoch": 7, "proof": counting(0xA0, 48)},
    },
    "hello-other-version": {**HELLO, "version": 0x0203, "message_bytes_max": 2**64 - 1},
    "welcome-aes": WELCOME,
    "welcome-chacha-resumed": {**WELCOME, "epoch": 8, "aead": "chacha", "resumed": True},
    "refused-version": {"code": 1, "reason": "version 1"},
    "refused-denied": {"code": 2, "reason": "why"},
    "refused-too-many-sessions": {"code": 3, "reason": ""},
    "refused-shutting-down": {"code": 4, "reason": ""},
    "refused-session-unknown": {"code": 5, "reason": ""},
    "refused-too-many-suspended": {"code": 6, "reason": ""},
    "refused-already-connected": {"code": 7, "reason": ""},
    "refused-session-ended": {"code": 8, "reason": ""},
    "refused-later": {"code": 0x1234, "reason": "é" * 100},
}


def opened(id, name):
    names = {"name": name, "label": "String", "codec": "postcard/1"}
    return ("OPEN", {"id": id, **names, "receives": False, "capacity": 0, "limit_bytes": 0})


def accepted(id):
    return ("ACCEPT", {"id": id, "mode": "Credit", "capacity": 4, "limit_bytes": 524_288})


def window(id, received, taken, limit):
    counts = {"received": received, "taken": taken, "limit": limit}
    return ("WINDOW", {"id": id, "generation": 0, **counts, "limit_bytes": 524_288})


def pos(id, next_expected=0, taken=0, limit=0, limit_bytes=0, committed=0):
    receiving = {"next_expected": next_expected, "taken": taken, "limit": limit, "limit_bytes": limit_bytes}
    return ("POS", {"id": id, "generation": 0, **receiving, "committed": committed})


def closed(id, final_seq):
    return ("CLOSE", {"id": id, "final_seq": final_seq, "code": 0, "reason": ""})


# What each end says behind its CONFIRM: frames by name, data by channel.
LINKS = {
    "first": {
        "client": [
            opened(1, "up"),
            ("PING", {"nonce": 300}),
            (1, head(0, items=[b"one", b"", b"three"])),
            accepted(2),
            (1, head(3, total=9, offset=0, part=b"a long ")),
            (1, head(3, total=9, offset=7, part=b"on")),
            window(2, 1, 1, 5),
        ],
        "server": [
            accepted(1),
            ("PONG", {"nonce": 300}),
            opened(2, "down"),
            (2, head(0, ack_now=True, items=[b"aye"])),
            window(1, 4, 3, 7),
        ],
    },
    "second": {
        "client": [
            opened(1, "up"),
            pos(1, committed=4),
            pos(2, next_expected=1, taken=1, limit=5, limit_bytes=524_288),
            (1, head(4, items=[b"five"])),
            closed(1, 5),
            closed(2, 2),
            ("GOAWAY", {"code": 0, "reason": "bye"}),
        ],
        "server": [
            opened(2, "down"),
            pos(1, next_expected=4, taken=4, limit=8, limit_bytes=524_288),
            pos(2, committed=1),
            (2, head(1, items=[b"bee"])),
            closed(1, 5),
            closed(2, 2),
        ],
    },
}
