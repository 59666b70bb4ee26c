"""The holder: a container of ours that keeps a run's volumes mounted before, during and after the run.

A tmpfs volume dies with its last user, so somebody trusted must hold it until the outputs have been read. The holder's
image is a few hundred bytes made here: one static program that sleeps. No base image and no download is needed.

A second program in it tries the walls around it, for a host's self-test.
"""

import hashlib
import io
import json
import struct
import tarfile

# pause(2) again and again: `mov eax, 34; syscall; jmp -9`
PAUSE = bytes.fromhex("b822000000 0f05 ebf7".replace(" ", ""))
PROGRAM = "/holder"

# bits of the exit status of the probe: what it found open, or how it knows gVisor
PRIVILEGES, SOCKETS, ROOT, CAPABILITIES, OWN_KERNEL = (1 << number for number in range(5))
PROBE = bytes.fromhex(
    "31db"  # nothing found so far
    "bf27000000 31f6 31d2 4531d2 4531c0 b89d000000 0f05 83f801 7403 83cb01"  # prctl(PR_GET_NO_NEW_PRIVS) != 1
    "bf10000000 be03000000 31d2 b829000000 0f05 85c0 7803 83cb02"  # socket(AF_NETLINK, SOCK_RAW, 0) >= 0
    "b866000000 0f05 85c0 7503 83cb04"  # getuid() == 0
    "bf17000000 31f6 b89d000000 0f05 85c0 7403 83cb08"  # prctl(PR_CAPBSET_READ, CAP_CHOWN) != 0
    "bf0a000000 31f6 31d2 b867000000 0f05 85c0 7803 83cb10"  # syslog(SYSLOG_ACTION_SIZE_BUFFER) >= 0: never in runc
    "89df b8e7000000 0f05".replace(" ", "")  # exit_group(found)
)
PROBE_PROGRAM = "/probe"
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


def archive(name: str) -> bytes:
    """The holder's image for `docker load`, under that name. Its id is the same on every engine."""
    layer = _tar({path.lstrip("/"): elf(code) for path, code in ((PROGRAM, PAUSE), (PROBE_PROGRAM, PROBE))})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    texts = {"config.json": config, "manifest.json": manifest}
    return _tar({"layer.tar": layer, **{path: json.dumps(text).encode() for path, text in texts.items()}})


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
