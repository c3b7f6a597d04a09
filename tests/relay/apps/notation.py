"""How what was seen is written down."""

import hashlib


def plain(value):
    """Return the value as JSON has it, with bytes and str told apart, and long ones as a sum."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "b:" + summary(bytes(value), "latin-1")
    if isinstance(value, str):
        return "s:" + summary(value.encode("utf-8", "surrogatepass"), "utf-8")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return f"object:{type(value).__name__}"


def summary(value, encoding):
    if len(value) <= 200:
        return value.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
    return f"{len(value)} bytes, {hashlib.sha256(value).hexdigest()[:16]}"
