"""Section 1 and WIRE-1: numbers, texts, hashes; and KEY-1."""

import hashlib
import hmac


class Refused(Exception):
    """Bytes that the specification says must be refused."""


class Reader:
    """Reads fields from the front of some bytes."""

    def __init__(self, data):
        self.rest = bytes(data)

    def bytes(self, count):
        if count > len(self.rest):
            raise Refused("truncated")
        head, self.rest = self.rest[:count], self.rest[count:]
        return head

    def be(self, count):
        """A big-endian number of so many bytes."""
        return int.from_bytes(self.bytes(count), "big")

    def u8(self):
        return self.be(1)

    def varint(self, bits=64):
        """WIRE-1: at most ten bytes, in the shortest form, and no wider than the field."""
        value = 0
        for index in range(10):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise Refused("a varint that is not in its shortest form")
                if value >> bits:
                    raise Refused(f"more than {bits} bits")
                return value
        raise Refused("a varint of more than ten bytes")

    def text(self, bytes_max):
        """WIRE-4."""
        return self._utf8(self.varint(), bytes_max)

    def text16(self, bytes_max=1024):
        """A text of section 3, which has a length of 16 bits."""
        return self._utf8(self.be(2), bytes_max)

    def _utf8(self, length, bytes_max):
        if length > bytes_max:
            raise Refused("a text that is too long")
        try:
            return self.bytes(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("a text that is not UTF-8") from None

    def end(self):
        if self.rest:
            raise Refused("bytes behind the end")


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def text(value):
    value = value.encode()
    return varint(len(value)) + value


def text16(value):
    value = value.encode()
    return len(value).to_bytes(2, "big") + value


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def sha384(*parts):
    return hashlib.sha384(b"".join(parts)).digest()


def mac256(key, *parts):
    return hmac.digest(key, b"".join(parts), "sha256")


def mac384(key, *parts):
    return hmac.digest(key, b"".join(parts), "sha384")


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
