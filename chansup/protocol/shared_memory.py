"""Memory that the supervisor makes and its children map: one anonymous file, memfd_create(2).

It begins with a head that says which version of which layout follows, so that code of another
version does not write into the wrong cells.
"""

import fcntl
import mmap
import os
import struct

from chansup.protocol import versions
from chansup.protocol.versions import Contract, VersionError

HEAD_SIZE = 64  # bytes
_HEAD = struct.Struct("=8sI")
_MAGIC = b"chansup\0"
_F_ADD_SEALS = 1033  # fcntl(2); Python names them only from 3.13 on
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1, 2, 4


def create(name: str, contract: Contract, size: int) -> int:
    """Return the descriptor of `size` zeroed bytes behind a head, for children to inherit."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, HEAD_SIZE + size)
    os.pwrite(descriptor, _HEAD.pack(_MAGIC, contract.newest), 0)
    # Sealed: a child that cut it off would kill the supervisor with SIGBUS.
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW)
    return descriptor


class SharedMemory:
    """What was created behind one descriptor; `None`: private memory, where nobody looks."""

    def __init__(self, descriptor: int | None, contract: Contract, size: int) -> None:
        """Raises VersionError when it was created in another layout than `contract`'s."""
        if descriptor is None:
            descriptor = -1
        else:
            _require(descriptor, contract, size)
        self._memory = mmap.mmap(descriptor, HEAD_SIZE + size)
        self.bytes = memoryview(self._memory)[HEAD_SIZE:]

    def close(self) -> None:
        """Unmap it; views of it must have been released."""
        self.bytes.release()
        self._memory.close()


def _require(descriptor: int, contract: Contract, size: int) -> None:
    head = os.pread(descriptor, _HEAD.size, 0)
    magic, version = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0)
    if magic != _MAGIC:
        version = 0  # from before versions were told
    versions.require(contract, version)
    found = os.fstat(descriptor).st_size
    if found != HEAD_SIZE + size:
        raise VersionError(
            f"{contract.name} has {found} bytes, and {HEAD_SIZE + size} were expected: "
            f"{versions.REMEDY}"
        )
