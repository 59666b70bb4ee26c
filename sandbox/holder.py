"""The holder: a container of ours that keeps a run's volumes mounted before, during and after the run.

A tmpfs volume dies with its last user, so somebody trusted must hold it until the outputs have been read. The holder's
image is a few hundred bytes made here: one static program that sleeps. No base image and no download is needed.
"""

import io
import struct
import tarfile

# pause(2) again and again: `mov eax, 34; syscall; jmp -9`
PAUSE = bytes.fromhex("b822000000 0f05 ebf7".replace(" ", ""))
PROGRAM = "/holder"
_LOAD_ADDRESS = 0x400000
_HEADERS = 64 + 56


def elf(code: bytes) -> bytes:
    """A static x86-64 Linux program of one read-only segment whose entry point is the first byte of `code`.

    Layout: System V ABI, ELF-64 object file format 1.5, with one program header of type PT_LOAD.
    """
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _LOAD_ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000)
    return ident + header + segment + code


def image_tar() -> bytes:
    """The holder's whole root file system, for `docker import`."""
    program = elf(PAUSE)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(PROGRAM.lstrip("/"))
        member.size = len(program)
        member.mode = 0o755
        tar.addfile(member, io.BytesIO(program))
    return buffer.getvalue()
