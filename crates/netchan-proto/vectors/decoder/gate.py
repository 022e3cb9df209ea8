"""Section 2: the gate."""

from .primitives import hkdf_expand, mac256, sha256, xor

GATE_BYTES = 56


class GateKey:
    """What one access secret ("psk") or pin ("pin") makes gates with."""

    def __init__(self, kind, key):
        prk = mac256(b"nc1 gate", key)
        keys = hkdf_expand("sha256", prk, kind, 64)
        self.tag_key, self.mask_key = keys[:32], keys[32:]

    def _tag(self, start, client_hello):
        return mac256(self.tag_key, start, sha256(client_hello))

    def _mask(self, salt):
        return mac256(self.mask_key, salt)[:8]

    def make(self, unix_seconds, salt, client_hello):
        start = salt + xor(unix_seconds.to_bytes(8, "big"), self._mask(salt))
        return start + self._tag(start, client_hello)

    def open(self, gate, client_hello):
        """The time in a gate that this key made; None if another did, or nobody."""
        if len(gate) != GATE_BYTES or gate[24:] != self._tag(gate[:24], client_hello):
            return None
        return int.from_bytes(xor(gate[16:24], self._mask(gate[:16])), "big")
