#!/usr/bin/env python3
"""Reads every vector here with the decoder beside it: docs/SPEC.md, hmac and `cryptography`, and no code of netchan.

    pip install cryptography && python3 crates/netchan-proto/vectors/verify.py

Then it shows that it can fail: it reads each file again with one digit of one line changed, for every line.
"""

import pathlib
import sys

sys.dont_write_bytecode = True

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: E402

import meanings  # noqa: E402
from decoder import data, frames, messages, records, schedule  # noqa: E402
from decoder.gate import GateKey  # noqa: E402
from decoder.primitives import Refused  # noqa: E402

VECTORS = pathlib.Path(__file__).resolve().parent
SIDES = ("client", "server")
checks = 0
damaged = None


def load(name, separator):
    lines = (VECTORS / f"{name}.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    v = {key: bytes.fromhex(value) for key, value in (line.split(separator, 1) for line in lines)}
    if damaged is not None and v[damaged]:
        middle = len(v[damaged]) // 2
        v[damaged] = v[damaged][:middle] + bytes([v[damaged][middle] ^ 0x10]) + v[damaged][middle + 1 :]
    return v


class Wrong(Exception):
    """A vector that does not say what the specification says."""


def check(name, found, expected):
    global checks
    checks += 1
    if found != expected:
        show = lambda value: value.hex() if isinstance(value, bytes) else repr(value)  # noqa: E731
        raise Wrong(f"{name}: read or computed {show(found)}, expected {show(expected)}")


def check_refused(name, act, *arguments):
    try:
        found = act(*arguments)
    except Refused:
        found = None
    check(name, found, None)


def check_encoding(name, read, write, encoded, expected):
    """What it means, that it has one encoding, and that nothing shorter means the same."""
    check(name, read(encoded), expected)
    check(f"{name}, written", write(read(encoded)), encoded)
    for end in range(len(encoded)):
        try:
            means = read(encoded[:end])
        except Refused:
            means = None
        check(f"{name}, cut at {end}", means != expected, True)


def flips(value):
    for bit in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def verify_gate():
    v = load("gate", " =")
    time = int.from_bytes(v["time"], "big")
    keys = {kind: GateKey(kind.encode(), v["key"]) for kind in ("psk", "pin")}
    for kind, key in keys.items():
        gate = v[kind]
        check(f"gate {kind}", key.make(time, v["salt"], v["client_hello"]), gate)
        # As a server reads it: every key is tried, and only the one that made it gives a time.
        times = {name: key.open(gate, v["client_hello"]) for name, key in keys.items()}
        check(f"gate {kind} opened", times, dict.fromkeys(keys) | {kind: time})
        opened = [key.open(flipped, v["client_hello"]) for flipped in flips(gate)]
        opened += [key.open(gate, flipped) for flipped in flips(v["client_hello"])]
        check(f"gate {kind} with a flipped bit", set(opened), {None})


def verify_channel(v, name, channel):
    for side in SIDES:
        traffic = channel.direction(side)
        for epoch in range(2):
            at = f"{name}.{side}.{epoch}"
            check(f"{at}.secret", traffic.secret, v[f"{at}.secret"])
            check(f"{at}.key", traffic.key, v[f"{at}.key"])
            check(f"{at}.iv", traffic.iv, v[f"{at}.iv"])
            traffic = traffic.next()


def verify_schedule():
    v = load("schedule", " =")
    check("alpn", v["alpn"], schedule.ALPN)
    transcript = ("gate_and_client_hello", "client_spki", "server_spki", "hello", "welcome")
    ctx = schedule.context(int.from_bytes(v["version"], "big"), *(v[name] for name in transcript))
    check("ctx", ctx, v["ctx"])
    for name, psk, rs_prev in (("full", v["psk"], v["rs_prev"]), ("bare", None, None)):
        link = schedule.Link(v["exporter"], psk, rs_prev, ctx)
        verify_channel(v, f"{name}.control", link.control)
        check(f"{name}.rs", link.resume_secret, v[f"{name}.rs"])
        check(f"{name}.proof", schedule.proof(link.resume_secret, v["resume_exporter"]), v[f"{name}.proof"])
        for side in SIDES:
            check(f"{name}.confirm.{side}", link.confirms[side], v[f"{name}.confirm.{side}"])
            for frame in ("first open", "second open"):
                verify_channel(v, f"{name}.{side}.{frame}", link.chains[side].step(frame.encode()))


def verify_header_mask():
    v = load("header_mask", " =")
    for cipher in records.AEADS:
        cases = sorted({name.split(".")[1] for name in v if name.startswith(f"{cipher}.") and name.count(".") == 2})
        check(f"{cipher} cases", len(cases) > 3, True)
        for case in cases:
            sample, plain, masked = (v[f"{cipher}.{case}.{part}"] for part in ("sample", "plain", "masked"))
            header = records.Header.unmask(cipher, v[f"{cipher}.key"], masked, sample)
            check(f"{cipher} header {case}", header.data, plain)
            fields = (header.length, header.channel, header.flags)
            check(f"{cipher} header {case}", fields, meanings.HEADERS[case])


def verify_stream(v, name, opener, stream):
    """Every record of one direction: whose it is and what it holds; and that it opens once, unchanged, in its place."""
    number = 0
    while stream:
        length = 8 + int.from_bytes(stream[:3], "big") if len(stream) > 2 else 0
        for flipped in flips(stream[:8]):
            check_refused(f"{name} record {number} with a flipped header", opener.open, flipped + stream[8:length])
        damaged = stream[: length - 1] + bytes([stream[length - 1] ^ 1])
        check_refused(f"{name} record {number} with a flipped tag", opener.open, damaged)
        before, (channel, plaintext, stream) = stream, opener.open(stream)
        check_refused(f"{name} record {number} again", opener.open, before)
        check(f"{name} record {number} channel", channel.to_bytes(4, "big"), v[f"{name}.{number:02}.channel"])
        check(f"{name} record {number}", plaintext, v[f"{name}.{number:02}.plaintext"])
        number += 1
    return number


def verify_records():
    v = load("records", " =")
    for cipher in records.AEADS:
        secrets = {
            int(name.rsplit(".", 1)[1], 16): schedule.Traffic(secret)
            for name, secret in v.items()
            if name.startswith(f"{cipher}.secret.")
        }
        opener = records.Opener(cipher, v[f"{cipher}.mask_key"], secrets.pop(records.CONTROL))
        for channel, traffic in secrets.items():
            opener.add(channel, traffic)
        check(f"{cipher} record count", verify_stream(v, cipher, opener, v[f"{cipher}.stream"]), 16)
        check(f"{cipher} rekeyed", opener.rekeys > 2, True)


def verify_frames():
    v = load("frames", " ")
    check("frames and data with a meaning", set(v), set(meanings.FRAMES) | set(meanings.TRAILERS))
    for name, expected in meanings.FRAMES.items():
        read = lambda encoded: frames.read(encoded)[0]  # noqa: E731
        check_encoding(name, read, lambda frame: frames.write(*frame), v[name], expected)
        check(f"{name}, all of it", frames.read(v[name] + b"\x30")[1], b"\x30")
        # WIRE-2: the same fields with a byte behind them.
        kind, length, body = v[name][:1], frames.Reader(v[name][1:]).varint(), v[name]
        body = body[len(body) - length :]
        check_refused(f"{name}, longer", frames.read, kind + frames.varint(length + 1) + body + b"\0")
    body = bytes([7]) * 10
    for name, expected in meanings.TRAILERS.items():
        check(name, data.read_trailer(body + v[name]), (expected, body))
        check(f"{name}, written", data.write_trailer(expected), v[name])


def verify_data():
    v = load("data", " ")
    kinds = {
        "record": (data.read_record, data.write_record),
        "ask": (data.read_ask, data.write_ask),
        "outcome": (data.read_outcome, data.write_outcome),
        "delivery": (data.read_delivery, data.write_delivery),
        "broadcast": (data.read_broadcast, data.write_broadcast),
    }
    check("values with a meaning", set(v), set(meanings.VALUES))
    for name, expected in meanings.VALUES.items():
        check_encoding(name, *kinds[name.split("-")[0]], v[name], expected)


def verify_hello():
    v = load("hello", " =")
    check("messages with a meaning", set(v), set(meanings.MESSAGES))
    for name, expected in meanings.MESSAGES.items():
        read, write = (
            (messages.read_hello, messages.write_hello)
            if name.startswith("hello")
            else (messages.read_welcome, messages.write_welcome)
        )
        check_encoding(name, read, write, v[name], expected)
        check_refused(f"{name}, longer", read, v[name] + b"\0")


class LinkReader:
    """Follows a whole link from what both its ends know: the streams alone say what was opened and what was sent."""

    def __init__(self, v, name, previous):
        self.name, take = name, lambda field: v[f"{name}.{field}"]
        gate, client_hello = take("gate"), take("client_hello")
        opened = GateKey(b"psk", v["psk"]).open(gate, client_hello)
        check(f"{name} gate", opened, int.from_bytes(take("time"), "big"))
        for side in SIDES:
            # HS-3 and HS-4: 44 bytes, of which the last 32 are a point of the curve.
            check(f"{side} key", v[f"{side}_spki"][:12].hex(), "302a300506032b6570032100")
            Ed25519PublicKey.from_public_bytes(v[f"{side}_spki"][12:])
        self.hello, self.welcome = messages.read_hello(take("hello")), messages.read_welcome(take("welcome"))
        self.judge_resume(previous, v.get(f"{name}.resume_exporter"))
        ctx = schedule.context(
            self.hello["version"], gate + client_hello, v["client_spki"], v["server_spki"], take("hello"), take("welcome")
        )
        check(f"{name} ctx", ctx, take("ctx"))
        # KEY-3: the proven secret of the link before goes into this one's keys.
        rs_prev = previous.keys.resume_secret if self.welcome["resumed"] else None
        self.keys = schedule.Link(take("exporter"), v["psk"], rs_prev, ctx)
        check(f"{name} resume secret", self.keys.resume_secret, take("rs"))
        self.openers = {
            side: records.Opener(self.welcome["aead"], self.keys.masks[side], self.keys.control.direction(side))
            for side in SIDES
        }
        self.heard = {side: [] for side in SIDES}
        self.v = v
        self.follow({side: take(f"stream.{side}") for side in SIDES})

    def judge_resume(self, previous, resume_exporter):
        """KEY-5 and SESS-15."""
        resume = self.hello.get("resume")
        check(f"{self.name} asks to resume", resume is not None, previous is not None)
        if previous:
            check("session", resume["session_id"], previous.welcome["session_id"])
            check("last epoch", resume["last_epoch"], previous.welcome["epoch"])
            check("proof", schedule.proof(previous.keys.resume_secret, resume_exporter), resume["proof"])
            check("resumed", self.welcome["resumed"], True)
            check("session of the answer", self.welcome["session_id"], resume["session_id"])
            check("incarnation", self.welcome["incarnation"], previous.welcome["incarnation"])
            check("a higher epoch", self.welcome["epoch"] > previous.welcome["epoch"], True)

    def follow(self, streams):
        """A record waits until the OPEN of its channel was read, whichever end said it."""
        while any(streams.values()):
            before = sum(map(len, streams.values()))
            for side, stream in streams.items():
                while stream and self.openers[side].peek(stream).channel in self.openers[side].channels:
                    channel, plaintext, stream = self.openers[side].open(stream)
                    self.hear(side, channel, plaintext)
                streams[side] = stream
            check(f"{self.name} goes on", sum(map(len, streams.values())) < before, True)

    def hear(self, side, channel, plaintext):
        record = f"{self.name}.{side}.{self.openers[side].sequence - 1:02}"
        check(f"{record} channel", channel.to_bytes(4, "big"), self.v[f"{record}.channel"])
        check(record, plaintext, self.v[f"{record}.plaintext"])
        if channel != records.CONTROL:
            record = data.read_record(plaintext)
            check(f"{self.name} data", data.write_record(record), plaintext)
            self.heard[side].append((channel, record))
            return
        for name, frame, encoded in frames.read_all(plaintext):
            check(f"{self.name} {name}", frames.write(name, frame), encoded)
            if not self.heard[side]:
                # SESS-2
                check(f"{self.name} {side} confirms", (name, frame), ("CONFIRM", {"mac": self.keys.confirms[side]}))
            if name == "OPEN":
                # KEY-8: one step of the opener's chain, and a key for each direction.
                opened = self.keys.chains[side].step(encoded)
                for sender, opener in self.openers.items():
                    opener.add(frame["id"], opened.direction(sender))
            self.heard[side].append((name, frame))


def verify_links():
    v = load("links", " =")
    previous = None
    for name, expected in meanings.LINKS.items():
        link = LinkReader(v, name, previous)
        for side in SIDES:
            heard = [entry for entry in link.heard[side] if entry[0] != "CONFIRM"]
            check(f"{name} from the {side}", heard, expected[side])
        check(f"{name} rekeyed", sum(opener.rekeys for opener in link.openers.values()) > 0, True)
        previous = link
    check("both ciphers", [v[f"{name}.aead"] for name in meanings.LINKS], [b"\1", b"\2"])


def unnoticed_of(verify, names):
    """Of these lines, those that may be changed without anybody noticing."""
    global damaged
    unnoticed = []
    for damaged in names:
        try:
            verify()
            unnoticed.append(damaged)
        except (Wrong, Refused, ValueError):
            pass
    damaged = None
    return unnoticed


if __name__ == "__main__":
    read = {
        "gate": verify_gate,
        "schedule": verify_schedule,
        "header_mask": verify_header_mask,
        "records": verify_records,
        "frames": verify_frames,
        "data": verify_data,
        "hello": verify_hello,
        "links": verify_links,
    }
    check("every file has its reader", {path.stem for path in VECTORS.glob("*.txt")}, set(read))
    for name, verify in read.items():
        before = checks
        verify()
        agreed = checks - before
        lines = load(name, " " if name in ("frames", "data") else " =")
        unnoticed = unnoticed_of(verify, [line for line, value in lines.items() if value])
        check(f"lines of {name} that nothing checks", unnoticed, [])
        print(f"{name}: {agreed} values agree, and a change in any of {len(lines)} lines is noticed")
