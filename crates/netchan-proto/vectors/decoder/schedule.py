"""Section 4: the key schedule."""

from .primitives import mac384, sha384, x

ALPN = b"netchan/1"


def context(version, gate_and_client_hello, client_spki, server_spki, hello, welcome):
    """KEY-2."""
    opening = sha384(gate_and_client_hello)
    spkis = client_spki + server_spki
    start = version.to_bytes(2, "big") + bytes([len(ALPN)]) + ALPN
    return sha384(start, opening, spkis, sha384(hello), sha384(welcome))


def proof(resume_secret, resume_exporter):
    """KEY-5."""
    return mac384(x(resume_secret, b"proof"), resume_exporter)


class Traffic:
    """KEY-7: one direction of one channel in one key epoch."""

    def __init__(self, secret):
        self.secret = secret
        self.key = x(secret, b"key", length=32)
        self.iv = x(secret, b"iv", length=12)

    def next(self):
        return Traffic(x(self.secret, b"upd"))


class Channel:
    """KEY-7: both directions of one channel."""

    def __init__(self, k):
        self.k = k

    def direction(self, sender):
        return Traffic(x(self.k, b"dir " + sender.encode()))


class Chain:
    """KEY-8: the keys of what one side opens, in the order of its OPENs."""

    def __init__(self, m):
        self.m = m

    def step(self, open_frame):
        k, self.m = x(self.m, b"chan", sha384(open_frame)), x(self.m, b"next")
        return Channel(k)


class Link:
    """KEY-3 and KEY-4: all keys of a link. None stands for what there is not."""

    def __init__(self, exporter, psk, rs_prev, ctx):
        s3 = mac384(b"nc1", exporter + (psk or bytes(32)) + (rs_prev or bytes(48)))
        self.resume_secret = x(s3, b"resume", ctx)
        self.control = Channel(x(s3, b"control", ctx))
        self.masks, self.confirms, self.chains = {}, {}, {}
        for side in ("client", "server"):
            name = side.encode()
            self.masks[side] = x(s3, b"hp " + name, ctx, 32)
            # KEY-6
            self.confirms[side] = mac384(x(s3, b"confirm " + name, ctx), ctx)
            self.chains[side] = Chain(x(s3, b"chain " + name, ctx))
