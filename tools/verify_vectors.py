#!/usr/bin/env python3
"""Checks crates/netchan-proto/vectors with code that shares nothing with netchan: docs/SPEC.md, hmac and `cryptography`.

    pip install cryptography && python3 tools/verify_vectors.py
"""

import hashlib
import hmac
import pathlib
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

VECTORS = pathlib.Path(__file__).resolve().parent.parent / "crates/netchan-proto/vectors"
checks = 0


def load(name):
    lines = (VECTORS / f"{name}.txt").read_text().splitlines()
    return {key: bytes.fromhex(value) for key, value in (line.split(" =", 1) for line in lines)}


def check(name, ours, theirs):
    global checks
    checks += 1
    if ours != theirs:
        sys.exit(f"{name}: computed {ours.hex()}, the vector says {theirs.hex()}")


def sha384(*parts):
    return hashlib.sha384(b"".join(parts)).digest()


def hkdf_expand(algorithm, prk, info, length):
    out, block, count = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([count]), algorithm)
        out, count = out + block, count + 1
    return out[:length]


def x(k, label, ctx=b"", length=48):
    """KEY-1."""
    label = b"nc1 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + bytes([len(ctx)]) + ctx
    return hkdf_expand("sha384", k, info, length)


def xor(a, b):
    return bytes(p ^ q for p, q in zip(a, b, strict=True))


def verify_gate():
    v = load("gate")
    for info in ("psk", "pin"):
        prk = hmac.digest(b"nc1 gate", v["key"], "sha256")
        keys = hkdf_expand("sha256", prk, info.encode(), 64)
        masked = xor(v["time"], hmac.digest(keys[32:], v["salt"], "sha256")[:8])
        start = v["salt"] + masked
        tag = hmac.digest(keys[:32], start + hashlib.sha256(v["client_hello"]).digest(), "sha256")
        check(f"gate {info}", start + tag, v[info])


def verify_channel(v, name, k):
    for side in ("client", "server"):
        t = x(k, b"dir " + side.encode())
        for epoch in range(2):
            at = f"{name}.{side}.{epoch}"
            check(f"{at}.secret", t, v[f"{at}.secret"])
            check(f"{at}.key", x(t, b"key", length=32), v[f"{at}.key"])
            check(f"{at}.iv", x(t, b"iv", length=12), v[f"{at}.iv"])
            t = x(t, b"upd")


def verify_schedule():
    v = load("schedule")
    ctx = sha384(
        v["version"], bytes([len(v["alpn"])]), v["alpn"], sha384(v["gate_and_client_hello"]),
        v["client_spki"], v["server_spki"], sha384(v["hello"]), sha384(v["welcome"]),
    )
    check("ctx", ctx, v["ctx"])
    for name, psk, rs_prev in (("full", v["psk"], v["rs_prev"]), ("bare", bytes(32), bytes(48))):
        s3 = hmac.digest(b"nc1", v["exporter"] + psk + rs_prev, "sha384")
        verify_channel(v, f"{name}.control", x(s3, b"control", ctx))
        rs = x(s3, b"resume", ctx)
        check(f"{name}.rs", rs, v[f"{name}.rs"])
        check(f"{name}.proof", hmac.digest(x(rs, b"proof"), v["resume_exporter"], "sha384"), v[f"{name}.proof"])
        for side in ("client", "server"):
            key = x(s3, b"confirm " + side.encode(), ctx)
            check(f"{name}.confirm.{side}", hmac.digest(key, ctx, "sha384"), v[f"{name}.confirm.{side}"])
            m = x(s3, b"chain " + side.encode(), ctx)
            for frame in ("first open", "second open"):
                verify_channel(v, f"{name}.{side}.{frame}", x(m, b"chan", sha384(frame.encode())))
                m = x(m, b"next")


def mask(cipher, key, sample):
    """REC-4. ChaCha20's counter and nonce are the sample as it stands."""
    if cipher == "aes":
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(sample)[:5]
    return Cipher(algorithms.ChaCha20(key, sample), None).encryptor().update(bytes(5))


def verify_records():
    v = load("records")
    for cipher, aead in (("aes", AESGCM), ("chacha", ChaCha20Poly1305)):
        secrets = {name.rsplit(".", 1)[1]: s for name, s in v.items() if name.startswith(f"{cipher}.secret.")}
        phases = dict.fromkeys(secrets, 0)
        stream, number = v[f"{cipher}.stream"], 0
        while stream:
            length = int.from_bytes(stream[:3], "big")
            sealed, stream, start = stream[8 : 8 + length], stream[8 + length :], stream[:8]
            head = start[:3] + xor(start[3:], mask(cipher, v[f"{cipher}.mask_key"], sealed[:16]))
            channel, flags = head[3:7].hex(), head[7]
            if flags & 1 != phases[channel]:
                secrets[channel], phases[channel] = x(secrets[channel], b"upd"), flags & 1
            t = secrets[channel]
            nonce = xor(x(t, b"iv", length=12), number.to_bytes(12, "big"))
            plaintext = aead(x(t, b"key", length=32)).decrypt(nonce, sealed, head)
            check(f"{cipher} record {number} channel", head[3:7], v[f"{cipher}.{number:02}.channel"])
            check(f"{cipher} record {number}", plaintext, v[f"{cipher}.{number:02}.plaintext"])
            number += 1
        check(f"{cipher} record count", bytes([number]), bytes([16]))
        check(f"{cipher} rekeyed", bytes([sum(phases.values()) > 0]), b"\x01")


if __name__ == "__main__":
    verify_gate()
    verify_schedule()
    verify_records()
    print(f"{checks} values agree")
