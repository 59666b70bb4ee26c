"""The walls, from inside: what a stranger's container finds when it tries them, on the real engine."""

import struct
import tarfile

import pytest
from image_builder import ImageBuilder, busybox_layer, member, tar

from sandbox import actions, walls
from sandbox.conf import conf
from sandbox.engine import RUN
from sandbox.holder import elf
from sandbox.limits import Limits
from sandbox.models import Run
from sandbox.reasons import Reason

pytestmark = pytest.mark.usefixtures("leaves_nothing")

EPERM, ENOSYS = 1, 38
SYSCALLS = {
    "io_uring_setup": (425, (8, 0), EPERM),
    "socket(AF_VSOCK)": (41, (40, 1, 0), EPERM),
    "socket(AF_NETLINK)": (41, (16, 3, 0), EPERM),
    "socket(AF_PACKET)": (41, (17, 3, 0), EPERM),
    "socket(AF_ALG)": (41, (38, 5, 0), EPERM),
    "unshare(CLONE_NEWUSER)": (272, (0x10000000,), EPERM),
    "clone(CLONE_NEWUSER)": (56, (0x10000000 | 17, 0, 0), EPERM),
    "clone3": (435, (0, 0), ENOSYS),
    "keyctl": (250, (0, 0), EPERM),
    "add_key": (248, (0, 0), EPERM),
    "bpf": (321, (0, 0, 0), EPERM),
    "perf_event_open": (298, (0, 0, 0), EPERM),
    "userfaultfd": (323, (0,), EPERM),
    "ptrace": (101, (0, 0), EPERM),
    "process_vm_readv": (310, (1, 0), EPERM),
    "mount": (165, (0, 0), EPERM),
    "setns": (308, (0, 0), EPERM),
    "pivot_root": (155, (0, 0), EPERM),
    "chroot": (161, (0,), EPERM),
    "init_module": (175, (0, 0), EPERM),
    "syslog": (103, (2, 0), EPERM),
    "open_by_handle_at": (304, (0, 0), EPERM),
    "kcmp": (312, (1, 1), EPERM),
    "settimeofday": (164, (0, 0), EPERM),
    "getpid": (39, (), None),
    "socket(AF_UNIX)": (41, (1, 1, 0), None),
    "socket(TCP)": (41, (2, 0x80801, 6), None),  # with both flags
    "socket(UDP over IPv6)": (41, (10, 2, 0), None),
    "socket(SCTP)": (41, (2, 1, 132), EPERM),
    "socket(SCTP by its type)": (41, (2, 5, 0), EPERM),
    "socket(MPTCP)": (41, (2, 1, 262), EPERM),
    "socket(UDP-Lite)": (41, (2, 2, 136), EPERM),
    "socket(ICMP)": (41, (2, 2, 1), EPERM),
    "socket(raw)": (41, (2, 3, 1), EPERM),
    **{
        f"socket(family {family})": (41, (family, 2, 0), EPERM) for family in (3, 9, 15, 21, 24, 29, 30, 31, 39, 41, 44)
    },
    **{f"clone(bit {bit:x})": (56, (bit | 17, 0, 0), EPERM) for bit in (0x20000, *(1 << n for n in range(25, 31)))},
    "personality(READ_IMPLIES_EXEC)": (135, (0x400000,), EPERM),
    "io_setup": (206, (1, 0), EPERM),
    "mq_open": (240, (0, 0, 0), EPERM),
    "msgget": (68, (0, 0), EPERM),
    "vmsplice": (278, (0, 0, 0), EPERM),
}
# of the kernel's list of system calls all that a program has no use for here; some came after this kernel or engine
CLOSED = {
    "modify_ldt": 154, "acct": 163, "umount2": 166, "swapon": 167, "reboot": 169, "sethostname": 170, "iopl": 172,
    "ioperm": 173, "delete_module": 176, "quotactl": 179, "lookup_dcookie": 212, "remap_file_pages": 216, "mbind": 237,
    "clock_settime": 227, "kexec_load": 246, "request_key": 249, "migrate_pages": 256, "move_pages": 279,
    "fanotify_init": 300, "name_to_handle_at": 303, "clock_adjtime": 305, "process_vm_writev": 311, "finit_module": 313,
    "kexec_file_load": 320, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448,
    "set_mempolicy_home_node": 450, "cachestat": 451, "map_shadow_stack": 453, "statmount": 457, "listmount": 458,
    "lsm_get_self_attr": 459, "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462,
}  # fmt: skip


def system_call(number: int, arguments: tuple[int, ...]) -> bytes:
    """A static program whose exit status is the error number of one system call; 0 if it succeeds."""
    registers = (b"\xbf", b"\xbe", b"\xba")  # mov edi, esi, edx
    code = b"".join(opcode + struct.pack("<I", value) for opcode, value in zip(registers, arguments, strict=False))
    code += b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax; syscall
    code += bytes.fromhex("31ff 4885c0 7904 89c7 f7df".replace(" ", ""))  # edi = rax < 0 ? -eax : 0
    return elf(code + b"\xb8" + struct.pack("<I", 231) + b"\x0f\x05")  # exit_group(edi)


@pytest.fixture
def try_calls(run, tmp_path):
    """One container makes all these system calls, each in a program of its own, and says what the kernel answered."""

    def try_calls(programs):
        files = [member(f"try/{position}", program) for position, program in enumerate(programs.values())]
        script = "for program in /try/*; do $program; echo $? ${program#/try/}; done 2> /dev/null"
        builder = ImageBuilder(layers=[busybox_layer(), tar(*files)], config={"Cmd": ["/bin/sh", "-c", script]})
        archive = builder.docker_archive(tmp_path / "image.tar")
        ended = run(actions.store_image(checked=actions.check_archive(archive=archive)), collect={})
        names = list(programs)
        return {names[int(position)]: int(code) for code, position in map(str.split, ended.log_path.open())}

    return try_calls


def test_system_calls(try_calls):
    answers = try_calls({name: system_call(number, given) for name, (number, given, _error) in SYSCALLS.items()})
    assert answers == {name: error or 0 for name, (_number, _arguments, error) in SYSCALLS.items()}


def test_system_calls_that_no_program_needs(try_calls):
    answers = try_calls({name: system_call(number, (0, 0, 0)) for name, number in CLOSED.items()})
    assert answers.keys() == CLOSED.keys()
    assert {name: answer for name, answer in answers.items() if answer not in (EPERM, ENOSYS)} == {}


def test_other_ways_into_the_kernel(try_calls):
    """The entries for 32-bit programs and for x32: getpid must not succeed there. Killed by SIGSYS, or SIGSEGV."""
    leave = bytes.fromhex("31ff b8e7000000 0f05".replace(" ", ""))  # exit_group(0)
    i386 = elf(bytes.fromhex("b814000000 cd80".replace(" ", "")) + leave)
    x32 = elf(b"\xb8" + struct.pack("<I", 0x40000000 + 39) + b"\x0f\x05" + leave)
    assert set(try_calls({"i386": i386, "x32": x32}).values()) <= {128 + 31, 128 + 11}


def test_everything_that_a_shell_can_try(run):
    """One container tries all, and says on its log which of them worked."""
    attempts = {
        "tcp": "nc -w 2 1.1.1.1 80 < /dev/null",
        "bridge": "nc -w 2 172.17.0.1 22 < /dev/null",
        "metadata": "wget -T 2 -O - http://169.254.169.254/",
        "dns": "nslookup example.com 1.1.1.1",
        "interfaces": "grep -v -e lo: -e face -e Inter /proc/net/dev",
        "write to the root": "touch /file",
        "write to the inputs": "touch /input/file",
        "remove an input": "rm -f /input/task.json",
        "write to /bin": "touch /bin/file",
        "write to /proc": "echo 1 > /proc/sys/kernel/panic",
        "write to /sys": "echo 1 > /sys/kernel/profiling",
        "device": "mknod /tmp/sda b 8 0",
        "other user": "chown 0 /tmp",
        "become root": "su -c true",
        "run from /tmp": "cp /bin/busybox /tmp/sh && chmod +x /tmp/sh && /tmp/sh -c true",
        "run from /output": "cp /bin/busybox /output/sh && chmod +x /output/sh && /output/sh -c true",
        "socket of the engine": "ls /var/run/docker.sock",
        "kernel log": "dmesg",
    }
    script = "".join(
        f"if ({command}) >/dev/null 2>&1; then echo 'worked: {name}'; fi; " for name, command in attempts.items()
    )
    script += (
        "nc -l -p 5000 < /dev/null & sleep 1; nc 127.0.0.1 5000 < /dev/null && echo talks to itself; cat /etc/hosts; "
    )
    script += "rm -f /output/sh; cat /proc/self/status; head -c 17 /proc/1/cmdline; echo yes > /output/answer.txt"
    ended = run(script)
    log = ended.log_path.read_text()
    assert ended.state == Run.State.SUCCEEDED, ended.detail
    assert "worked" not in log, log
    assert "talks to itself" in log
    assert "localhost" in log
    assert "NoNewPrivs:\t1" in log
    assert "Seccomp:\t2" in log
    assert "CapEff:\t0000000000000000" in log
    assert "CapBnd:\t0000000000000000" in log
    assert "docker-init" in log


def test_setuid_file_gives_nothing(run, tmp_path):
    """geteuid(2) from a setuid root file."""
    code = bytes.fromhex("b86b0000000f05 89c7 b8e70000000f05".replace(" ", ""))  # exit_group(geteuid())
    layers = [tar(member("try", elf(code), mode=0o4755, uid=0))]
    archive = ImageBuilder(layers=layers, config={"Cmd": ["/try"], "User": "root"}).docker_archive(tmp_path / "i.tar")
    ended = run(actions.store_image(checked=actions.check_archive(archive=archive)), collect={})
    assert ended.exit_code == 65534 & 0xFF


def test_a_link_where_we_mount_is_the_images_own_fault(run, tmp_path):
    """The runtime refuses to mount over /proc. As a fault of the platform it would be tried again, for nothing."""
    layers = [busybox_layer(), tar(member("input", type=tarfile.SYMTYPE, linkname="../../../../proc"))]
    builder = ImageBuilder(layers=layers, config={"Cmd": ["/bin/sh", "-c", "true"]})
    archive = builder.docker_archive(tmp_path / "i.tar")
    ended = run(actions.store_image(checked=actions.check_archive(archive=archive)), collect={})
    assert (ended.reason, ended.faults) == (Reason.CRASHED, 0)


@pytest.mark.parametrize("config", [{"WorkingDir": "a/b"}, {"Entrypoint": [""]}], ids=["relative folder", "no name"])
def test_a_program_that_cannot_start_is_the_images_own_fault(run, make_image, config):
    ended = run(make_image("true", **config), collect={})
    assert (ended.reason, ended.faults) == (Reason.CRASHED, 0)


def test_a_declared_volume_has_bounds(run, make_image):
    """An engine would make it writable up to the end of its disk."""
    script = "/bin/busybox dd if=/dev/zero of=/persistent_data/x bs=1M count=100; /bin/busybox wc -c /persistent_data/x"
    image = make_image(f"{script} > /output/answer.txt", Volumes={"/persistent_data": {}})
    ended = run(image, limits={"memory_mb": 128})
    assert ended.state == Run.State.SUCCEEDED, ended.detail
    written = int((ended.result_folder / "answer.txt").read_text().split()[0])
    assert 0 < written <= 64 << 20


def test_options_as_the_engine_sees_them(engine, host, queue, monkeypatch):
    """What DESIGN and SANDBOX promise, read back from a real container."""
    from sandbox import worker

    seen = {}
    honest = type(engine).ending

    def ending(self, container):
        seen.update(self._client.inspect_container(container))
        return honest(self, container)

    monkeypatch.setattr(type(engine), "ending", ending)
    queue("true", limits={"cpus": 0.5}, collect={})
    worker.work()

    config, options = seen["Config"], seen["HostConfig"]
    assert config["User"] == "65534:65534"
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert config["Labels"][RUN]
    assert config["NetworkDisabled"] is True
    assert options["NetworkMode"] == "none"
    assert options["ReadonlyRootfs"] is True
    assert options["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in options["SecurityOpt"]
    assert options["Memory"] == options["MemorySwap"] == 64 << 20
    assert options["NanoCpus"] == 500_000_000
    assert options["PidsLimit"] == 64
    assert options["IpcMode"] == "private"
    assert options["ShmSize"] == 16 << 20
    assert options["Init"] is True
    assert options["Privileged"] is False
    assert options["Tmpfs"] == {"/tmp": "rw,noexec,nosuid,nodev,size=64m,nr_inodes=10000,mode=1777"}
    assert {limit["Name"]: limit["Hard"] for limit in options["Ulimits"]} == {
        "nofile": 1024,
        "core": 0,
        "fsize": 1 << 30,
    }
    assert options["LogConfig"]["Config"] == {"max-size": "1m", "max-file": "2"}
    assert {mount["Destination"]: mount["RW"] for mount in seen["Mounts"]} == {
        "/input": False,
        "/output": True,
        "/etc/hosts": False,
    }


@pytest.mark.parametrize("cdi", [False, True])
def test_gpus_are_asked_for_by_their_uuid(cdi):
    """There is no GPU here: this looks at the request that an engine would get."""
    body = walls.container(
        image_id="sha256:0",
        step="fit",
        limits=Limits(gpus=1),
        gpus=["GPU-1", "MIG-2"],
        inputs="in",
        outputs="out",
        hosts="hosts",
        conf=conf(),
        cdi=cdi,
    )
    by_driver = {"Driver": "nvidia", "DeviceIDs": ["GPU-1", "MIG-2"], "Capabilities": [["gpu", "compute", "utility"]]}
    by_cdi = {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=MIG-2"]}
    assert body["HostConfig"]["DeviceRequests"] == [by_cdi if cdi else by_driver]
    assert [item for item in body["Env"] if item.startswith("NVIDIA_")] == [
        "NVIDIA_VISIBLE_DEVICES=GPU-1,MIG-2",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    ]
