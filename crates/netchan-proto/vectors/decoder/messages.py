"""Section 3: Hello and Welcome, as Python dictionaries."""

from .primitives import Reader, Refused, text16

AEADS = {1: "aes", 2: "chacha"}
CODES = {
    1: "VersionUnsupported", 2: "Denied", 3: "TooManySessions", 4: "ShuttingDown", 5: "SessionUnknown",
    6: "TooManySuspended", 7: "AlreadyConnected", 8: "SessionEnded",
}  # fmt: skip


def read_hello(data):
    r = Reader(data)
    hello = {"version": r.be(2)}
    flags = r.u8()
    if flags > 3:
        raise Refused("hello flags")
    hello |= {"aes_hardware": flags & 1 != 0, "message_bytes_max": r.be(8), "agent": r.text16()}
    if flags & 2:
        hello["resume"] = {"session_id": r.bytes(16), "last_epoch": r.be(4), "proof": r.bytes(48)}
    r.end()
    return hello


def write_hello(hello):
    resume = hello.get("resume")
    flags = hello["aes_hardware"] + 2 * (resume is not None)
    out = hello["version"].to_bytes(2, "big") + bytes([flags])
    out += hello["message_bytes_max"].to_bytes(8, "big") + text16(hello["agent"])
    if resume:
        out += resume["session_id"] + resume["last_epoch"].to_bytes(4, "big") + resume["proof"]
    return out


def read_welcome(data):
    r = Reader(data)
    kind = r.u8()
    if kind == 1:
        welcome = {"code": r.be(2), "reason": r.text16()}
        r.end()
        return welcome
    if kind != 0:
        raise Refused("welcome kind")
    welcome = {"session_id": r.bytes(16), "incarnation": r.be(8), "epoch": r.be(4)}
    aead, flags = r.u8(), r.u8()
    if aead not in AEADS or flags > 1:
        raise Refused("welcome cipher or flags")
    welcome |= {"aead": AEADS[aead], "resumed": flags == 1, "message_bytes_max": r.be(8)}
    welcome |= {"channels_max": r.be(4), "agent": r.text16()}
    r.end()
    return welcome


def write_welcome(welcome):
    if "code" in welcome:
        return b"\1" + welcome["code"].to_bytes(2, "big") + text16(welcome["reason"])
    out = b"\0" + welcome["session_id"] + welcome["incarnation"].to_bytes(8, "big")
    out += welcome["epoch"].to_bytes(4, "big")
    out += bytes([next(code for code, name in AEADS.items() if name == welcome["aead"])])
    out += bytes([welcome["resumed"]]) + welcome["message_bytes_max"].to_bytes(8, "big")
    return out + welcome["channels_max"].to_bytes(4, "big") + text16(welcome["agent"])
