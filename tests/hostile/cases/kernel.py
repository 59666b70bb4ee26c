"""The kernel's surface: system calls and files that a container has no business with."""

from sandbox.holder import elf
from tests.hostile.model import Case
from tests.sandbox.image_builder import member

_SECCOMP = "Our seccomp profile refuses the call."

NEW_NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "cgroup": 0x02000000,
}


def _case(id: str, tries: str, program: str, stops: str = _SECCOMP, **more) -> Case:
    return Case(id, "kernel", tries, stops, program=f"{program}\npolite()\n", **more)


def _calls(**calls: tuple[object, ...]) -> str:
    return "".join(f"blocked({name!r}, syscall, {', '.join(map(repr, call))})\n" for name, call in calls.items())


def _exit_with(code: str) -> bytes:
    """A static program that ends with the low byte of what `code` leaves in eax."""
    return elf(bytes.fromhex(code.replace(" ", "")) + bytes.fromhex("89c7 b8e7000000 0f05".replace(" ", "")))


CASES = [
    _case(
        "mount",
        "Mounts file systems by the old and the new calls, and unmounts what covers the host's.",
        _calls(
            tmpfs=(165, b"x", b"/tmp", b"tmpfs", 0, b""),
            bind=(165, b"/proc", b"/tmp", b"", 4096, b""),
            proc=(165, b"proc", b"/tmp", b"proc", 0, b""),
            remount=(165, b"", b"/", b"", 32, b""),
            umount=(166, b"/proc/keys", 2),
            fsopen=(430, b"tmpfs", 0),
            open_tree=(428, -100, b"/proc", 1),
            move_mount=(429, -100, b"/tmp", -100, b"/input", 0),
            mount_setattr=(442, -100, b"/", 0, 0, 0),
            pivot_root=(155, b"/tmp", b"/tmp"),
        ),
        stops=_SECCOMP + " It has no SYS_ADMIN either.",
    ),
    _case(
        "chroot",
        "Changes its root, to climb out of it.",
        'refused("chroot", syscall, 161, b"/tmp")',
    ),
    _case(
        "user-namespace",
        "Makes a user namespace, in which it would be root with all capabilities.",
        """
def unshare(flags):
    status = in_child(lambda: (syscall(272, flags), os._exit(7)))
    if status >> 8 != 7:
        raise OSError(errno.EPERM, "refused")

refused("unshare user", unshare, 0x10000000)
blocked("clone3", syscall, 435, 0, 0)

def clone_user():
    child = syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child

refused("clone user", clone_user)
""",
        walls=("seccomp",),
        emulated=("unshare user", "clone user"),
    ),
    _case(
        "namespaces",
        "Makes new namespaces of every other kind.",
        "".join(
            f"refused({name!r}, syscall, 272, {flag})\n" for name, flag in NEW_NAMESPACES.items() if name != "user"
        ),
        stops=_SECCOMP + " It has no SYS_ADMIN either. gVisor says yes to two, and does nothing.",
        emulated=("mount", "cgroup"),
    ),
    _case(
        "setns",
        "Enters the namespaces of another process.",
        """
for name in ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup"):
    def enter():
        handle = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)
        syscall(308, handle, 0)
    refused(name, enter)
refused("pidfd", lambda: syscall(308, syscall(434, 1, 0), 0x20000))
""",
    ),
    _case(
        "bpf",
        "Loads a BPF program into the kernel.",
        "import ctypes\nattributes = (ctypes.c_char * 128)()\n"
        "for command in (0, 5, 18):\n"
        '    blocked(f"bpf {command}", syscall, 321, command, ctypes.addressof(attributes), 128)',
    ),
    _case(
        "keyrings",
        "Reads and writes the kernel's keyrings, which know no containers.",
        _calls(
            keyctl=(250, 0, -3, 1),
            add_key=(248, b"user", b"hostile", b"bits", 4, -3),
            request_key=(249, b"user", b"hostile", 0, -3),
        ),
        walls=("seccomp",),
    ),
    _case(
        "userfaultfd",
        "Stops the kernel in the middle of a copy with userfaultfd.",
        _calls(user_mode=(323, 1), kernel_too=(323, 0)),
        walls=("seccomp",),
    ),
    _case(
        "perf-events",
        "Counts the host's caches and branches by perf_event_open, as side channels need.",
        """
import ctypes
attributes = (ctypes.c_uint64 * 16)()
attributes[0] = 1 | 112 << 32
blocked("software clock", syscall, 298, ctypes.addressof(attributes), 0, -1, -1, 0)
attributes[0] = 0 | 112 << 32
blocked("hardware cycles", syscall, 298, ctypes.addressof(attributes), 0, -1, -1, 0)
""",
    ),
    _case(
        "io-uring",
        "Sends its system calls through io_uring, past most filters; engines' default profiles leave it open.",
        "import ctypes\nparameters = (ctypes.c_char * 256)()\n"
        'blocked("io_uring_setup", syscall, 425, 8, ctypes.addressof(parameters))\n'
        + _calls(io_uring_enter=(426, 0, 0, 0, 0, 0), io_uring_register=(427, 0, 0, 0, 0)),
        stops=_SECCOMP + " gVisor has a small io_uring of its own, within its own kernel.",
        walls=("seccomp", "seccomp-default"),
        emulated=("io_uring_setup",),
    ),
    _case(
        "ptrace",
        "Takes over other processes by ptrace, process_vm_readv and pidfd_getfd.",
        """
import signal

def trace_me():
    status = in_child(lambda: (syscall(101, 0, 0, 0, 0), os._exit(7)))
    if status >> 8 != 7:
        raise OSError(errno.EPERM, "refused")

refused("traceme", trace_me)
refused("attach to init", syscall, 101, 16, 1, 0, 0)
refused("read init's memory", lambda: open("/proc/1/mem", "rb").read(1))
blocked("process_vm_readv", syscall, 310, 1, 0, 0, 0, 0, 0)
refused("pidfd_getfd", lambda: syscall(438, syscall(434, 1, 0), 0, 0))
blocked("kcmp", syscall, 312, 1, os.getpid(), 0, 0, 0)
""",
        stops=_SECCOMP + " gVisor lets a process trace its own children, within its own kernel.",
        walls=("seccomp",),
        emulated=("traceme",),
    ),
    _case(
        "modules",
        "Loads a module, or another kernel.",
        _calls(
            init_module=(175, b"", 0, b""),
            finit_module=(313, 0, b"", 0),
            delete_module=(176, b"ext4", 0),
            kexec_load=(246, 0, 0, 0, 0),
            kexec_file_load=(320, 0, 0, 0, b"", 0),
        ),
        stops=_SECCOMP + " It has no SYS_MODULE either.",
    ),
    _case(
        "kernel-log",
        "Reads the kernel's log, which names addresses and other containers.",
        "import ctypes\nbuffer = (ctypes.c_char * 4096)()\n"
        'refused("syslog", syscall, 103, 3, ctypes.addressof(buffer), 4096)\n'
        'refused("size", syscall, 103, 10, 0, 0)\nrefused("/dev/kmsg", os.open, "/dev/kmsg", os.O_RDONLY)',
        stops=_SECCOMP + " gVisor shows a made-up log of its own.",
        emulated=("syslog", "size"),
    ),
    _case(
        "setuid-file",
        "Runs a setuid root file from its own layer.",
        """
status = in_child(os.execv, "/app/who", ["/app/who"])
equal("euid, low byte", status >> 8, 65534 & 0xFF)
""",
        stops="no-new-privileges: the bit is ignored.",
        walls=("no-new-privileges",),
        files=(member("app/who", _exit_with("b86b0000000f05"), mode=0o4755, uid=0),),  # geteuid
    ),
    _case(
        "setgid-file",
        "Runs a setgid file from its own layer, for the group of the host's disks or of the engine.",
        """
status = in_child(os.execv, "/app/which", ["/app/which"])
equal("egid, low byte", status >> 8, 65534 & 0xFF)
""",
        stops="no-new-privileges: the bit is ignored.",
        walls=("no-new-privileges",),
        files=(member("app/which", _exit_with("b86c0000000f05"), mode=0o2755, uid=0, gid=6),),  # getegid
    ),
    _case(
        "become-root",
        "Becomes root by asking, and gives itself groups and capabilities.",
        """
refused("setuid", os.setuid, 0)
refused("setgid", os.setgid, 0)
refused("setresuid", os.setresuid, 0, 0, 0)
refused("setgroups", os.setgroups, [0])
refused("chown", os.chown, "/tmp", 0, 0)
equal("user", (os.getuid(), os.geteuid(), os.getgid(), os.getegid()), (65534, 65534, 65534, 65534))
equal("groups", [group for group in os.getgroups() if group != 65534], [])
""",
        stops="It runs as 65534:65534 without capabilities, whatever the image says.",
        walls=("user", "group"),
        config={"User": "root"},
        # an image's own list of groups, which an engine reads when it is told a user without a group
        files=(
            member("etc/passwd", b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", mode=0o644),
            member("etc/group", b"root:x:0:nobody\ndisk:x:6:nobody\nnogroup:x:65534:\n", mode=0o644),
        ),
    ),
    _case(
        "capabilities",
        "Counts the capabilities that it has or could get.",
        """
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    if name in status:
        equal(name, int(status[name], 16), 0)
""",
        stops="All capabilities are dropped, from the bounding set too.",
        walls=("capabilities",),
    ),
    Case(
        "flags",
        "kernel",
        "Looks whether the filters are on: no new privileges, seccomp.",
        "Both are set before the image's first instruction.",
        program="""
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
equal("NoNewPrivs", status.get("NoNewPrivs", "absent").strip(), "1")
equal("Seccomp", status.get("Seccomp", "absent").strip(), "2")
polite()
""",
        walls=("no-new-privileges", "seccomp"),
        emulated=("NoNewPrivs", "Seccomp"),  # of gVisor's own kernel; the filter is around gVisor itself
    ),
    _case(
        "32-bit-calls",
        "Makes system calls of the i386 and x32 kinds, which filters for x86-64 forget.",
        """
status = in_child(os.execv, "/app/int80", ["/app/int80"])
say("i386 getpid", status, held=status >> 8 != 7)
status = in_child(lambda: (syscall(0x40000000 | 39), os._exit(7)))
say("x32 getpid", status, held=status >> 8 != 7)
""",
        stops="The profile knows x86-64 only: anything else is refused or killed.",
        walls=("seccomp",),
        # i386 getpid (20) by int 0x80; ends with 7 if that gave a process id
        files=(
            member(
                "app/int80",
                elf(bytes.fromhex("b814000000cd80 85c0 bf01000000 7e05 bf07000000 b8e70000000f05".replace(" ", ""))),
                mode=0o755,
            ),
        ),
    ),
    _case(
        "file-handles",
        "Opens the host's files by handle, past all mounts (the “shocker” escape).",
        """
import ctypes
parts = ((8, 4), (1, 4), (2, 8))  # size, kind, inode number of the root
handle = ctypes.create_string_buffer(b"".join(value.to_bytes(size, "little") for value, size in parts))
root = os.open("/input", os.O_RDONLY)
blocked("open_by_handle_at", syscall, 304, root, ctypes.addressof(handle), 0)
blocked("fanotify_init", syscall, 300, 0, 0)
""",
        stops=_SECCOMP + " It has no DAC_READ_SEARCH either.",
        emulated=("open_by_handle_at",),  # it has no such call: ENOTSUP
    ),
    _case(
        "machine",
        "Sets the clock and the name, reboots, adds swap, asks for I/O ports and real-time priority.",
        _calls(
            settimeofday=(164, 0, 0),
            clock_settime=(227, 0, 0),
            sethostname=(170, b"hostile", 7),
            setdomainname=(171, b"hostile", 7),
            reboot=(169, 0xFEE1DEAD, 672274793, 0x4321FEDC, 0),
            swapon=(167, b"/tmp/swap", 0),
            acct=(163, b"/tmp/acct"),
            quotactl=(179, 0, 0, 0, 0),
            iopl=(172, 3),
            ioperm=(173, 0x70, 1, 1),
            lookup_dcookie=(212, 0, 0, 0),
        )
        + """
refused("nice", os.nice, -10)
refused("real time", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(10))
import resource
refused("more files", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)))
""",
        stops=_SECCOMP + " It has no capabilities either.",
        emulated=("nice",),
    ),
]
