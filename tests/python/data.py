"""Test data that Python and Rust (`dilated_tests::data`) make alike, and make fast.

`data(seed)` is an endless stream of 64 KiB blocks. The template of a seed is
SHA-256(seed BE8 || 0 BE8) || SHA-256(seed BE8 || 1 BE8) || ... (2048 digests); block `n` is the template
with its first eight bytes exclusive-or'd with `n` BE8, so that no two blocks are alike and a block that is
lost, doubled or moved changes the hash.
"""

import functools
import hashlib
import struct

BLOCK = 65536


@functools.lru_cache(maxsize=1024)
def _template(seed):
    digests = (hashlib.sha256(struct.pack(">QQ", seed, i)).digest() for i in range(BLOCK // 32))
    return b"".join(digests)


def block(seed, number):
    template = _template(seed)
    head = struct.unpack_from(">Q", template)[0] ^ number
    return struct.pack(">Q", head) + template[8:]


def data(seed, offset, length):
    """The bytes `offset .. offset + length` of the stream of `seed`."""
    pieces = []
    while length > 0:
        number, skip = divmod(offset, BLOCK)
        piece = block(seed, number)[skip : skip + length]
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)
