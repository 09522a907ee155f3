"""The checksums that S3 knows, from the standard library only, in base64 as its headers carry them."""

import base64
import hashlib
import zlib

CRC32C_POLYNOMIAL = 0x82F63B78
CRC64NVME_POLYNOMIAL = 0x9A6C9329AC4BC9B5


def _table(polynomial):
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        table.append(value)
    return table


def _reflected(data, table, mask):
    value = mask
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value ^ mask


_CRC32C = _table(CRC32C_POLYNOMIAL)
_CRC64NVME = _table(CRC64NVME_POLYNOMIAL)

RAW = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: _reflected(data, _CRC32C, 0xFFFF_FFFF).to_bytes(4, "big"),
    "CRC64NVME": lambda data: _reflected(data, _CRC64NVME, 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}

ALGORITHMS = tuple(RAW)


def base64_of(raw):
    return base64.b64encode(raw).decode()


def checksum(algorithm, data):
    return base64_of(RAW[algorithm](data))


def md5_base64(data):
    return base64_of(hashlib.md5(data).digest())


def md5_hex(data):
    return hashlib.md5(data).hexdigest()


def parts_etag(parts):
    """The entity tag of an object completed from these parts."""
    joined = b"".join(hashlib.md5(part).digest() for part in parts)
    return f"{hashlib.md5(joined).hexdigest()}-{len(parts)}"


def composite(algorithm, parts):
    """The checksum of an object completed from these parts: of the parts' checksums."""
    return f"{checksum(algorithm, b''.join(RAW[algorithm](part) for part in parts))}-{len(parts)}"
