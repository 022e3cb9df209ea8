"""Section 5: the record layer."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from .primitives import Refused, xor

AEADS = {"aes": AESGCM, "chacha": ChaCha20Poly1305}
CONTROL = 0


def mask(cipher, key, sample):
    """REC-4. ChaCha20's counter and nonce are the sample as it stands."""
    if cipher == "aes":
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(sample)[:5]
    return Cipher(algorithms.ChaCha20(key, sample), None).encryptor().update(bytes(5))


class Header:
    """The eight bytes before the ciphertext, unmasked."""

    def __init__(self, data):
        self.data = data
        self.length = int.from_bytes(data[:3], "big")
        self.channel = int.from_bytes(data[3:7], "big")
        self.flags = data[7]

    @classmethod
    def unmask(cls, cipher, key, data, sample):
        return cls(data[:3] + xor(data[3:8], mask(cipher, key, sample)))


class Opener:
    """Opens one direction of a link."""

    def __init__(self, cipher, mask_key, control):
        self.cipher, self.mask_key = cipher, mask_key
        self.sequence = 0
        self.rekeys = 0
        self.channels = {CONTROL: (control, 0)}

    def add(self, channel, traffic):
        self.channels[channel] = (traffic, 0)

    def peek(self, stream):
        """The header of the first record."""
        length = int.from_bytes(stream[:3], "big")
        # REC-1
        if not 16 <= length <= 65_552:
            raise Refused("a record of a length that is not allowed")
        if len(stream) < 8 + length:
            raise Refused("truncated")
        header = Header.unmask(self.cipher, self.mask_key, stream[:8], stream[8:24])
        if header.flags > 1:
            raise Refused("undefined flags")
        return header

    def open(self, stream):
        """Channel and plaintext of the first record, and what is behind it. On a refusal nothing changes."""
        header = self.peek(stream)
        if header.channel not in self.channels:
            raise Refused("a record of an unknown channel")
        traffic, phase = self.channels[header.channel]
        # REC-7
        rekeyed = header.flags != phase
        if rekeyed:
            traffic = traffic.next()
        # REC-5 and REC-6
        nonce = xor(traffic.iv, self.sequence.to_bytes(12, "big"))
        sealed = stream[8 : 8 + header.length]
        try:
            plaintext = AEADS[self.cipher](traffic.key).decrypt(nonce, sealed, header.data)
        except InvalidTag:
            raise Refused("a record that is not authentic") from None
        self.channels[header.channel] = (traffic, header.flags)
        self.sequence += 1
        self.rekeys += rekeyed
        return header.channel, plaintext, stream[8 + header.length :]
