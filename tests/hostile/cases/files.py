"""The kernel's surface, as files: devices, /proc, /sys, and every place that a container can or cannot write to."""

from tests.hostile.model import SCORED, Case, rehearsal
from tests.sandbox.image_builder import member

_FILES = "The kernel's files are read-only or masked, and it is not root."


def _case(id: str, tries: str, program: str, stops: str, **more) -> Case:
    return Case(id, "kernel", tries, stops, program=f"{program}\npolite()\n", **more)


CASES = [
    _case(
        "raw-disk",
        "Makes a device node of the host's disk and reads it.",
        """
import stat
disks = [line.split() for line in open("/proc/partitions")][2:] if os.path.exists("/proc/partitions") else []
disks = [(int(major), int(minor)) for major, minor, *_ in disks] or [(8, 0), (254, 0)]
for folder in ("/tmp", "/output", "/dev/shm"):
    for major, minor in disks[:3]:
        def read_disk():
            path = f"{folder}/disk{major}-{minor}"
            os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(major, minor))
            return open(path, "rb").read(1)
        refused(f"{folder} {major}:{minor}", read_disk)
""",
        stops="It has no MKNOD, and the engine's device rules refuse what an image brings along.",
    ),
    _case(
        "device-in-image",
        "Brings device nodes along in its layer: the host's disk and its memory.",
        """
for name in ("disk", "mem", "kmsg"):
    refused(name, lambda: open(f"/app/{name}", "rb", buffering=0).read(1))
    refused(f"write {name}", lambda: os.open(f"/app/{name}", os.O_WRONLY))
""",
        stops="The engine's device rules allow null, zero, full, random, urandom and tty only.",
        files=(
            member("app/disk", type=b"4", devmajor=254, devminor=0, mode=0o666),
            member("app/mem", type=b"3", devmajor=1, devminor=1, mode=0o666),
            member("app/kmsg", type=b"3", devmajor=1, devminor=11, mode=0o666),
        ),
    ),
    _case(
        "devices",
        "Opens devices that a careless host passes on.",
        """
for name in ("sda", "vda", "nvme0n1", "mem", "kmem", "port", "kmsg", "kvm", "fuse", "net/tun", "vsock", "loop-control",
             "dri/card0", "nvidia0", "nvidiactl", "vfio/vfio", "uinput", "hpet", "mapper/control"):
    refused(name, os.open, f"/dev/{name}", os.O_RDONLY)
""",
        stops="A /dev of its own holds only the harmless ones. gVisor has a fuse and a tun of its own kernel.",
        emulated=("fuse", "net/tun"),
    ),
    _case(
        "proc-writes",
        "Writes to /proc: core_pattern, sysrq, the overcommit rules, another process's OOM score.",
        """
for path in ("sys/kernel/core_pattern", "sysrq-trigger", "sys/kernel/sysrq", "sys/vm/overcommit_memory",
             "sys/kernel/hostname", "sys/net/ipv4/ip_forward", "sys/kernel/modprobe", "sys/fs/binfmt_misc/register",
             "sys/kernel/panic", "irq/default_smp_affinity"):
    refused(path, write, f"/proc/{path}", "1")

def immune():
    write("/proc/self/oom_score_adj", "-900")

refused("own oom score", immune)
""",
        stops=_FILES,
        emulated=("own oom score",),
    ),
    _case(
        "sys-writes",
        "Writes to /sys: cgroup limits, the release agent, power, kernel parameters.",
        """
for path in ("fs/cgroup/memory/memory.limit_in_bytes", "fs/cgroup/memory.max", "fs/cgroup/pids/pids.max",
             "fs/cgroup/release_agent", "fs/cgroup/memory/release_agent", "fs/cgroup/devices/devices.allow",
             "power/state", "kernel/profiling", "kernel/uevent_helper", "module/kernel/parameters/panic",
             "fs/cgroup/memory/hostile/x", "kernel/mm/ksm/run"):
    refused(path, write, f"/sys/{path}", "1")
refused("a cgroup of its own", os.mkdir, "/sys/fs/cgroup/memory/hostile")
refused("another of its own", os.mkdir, "/sys/fs/cgroup/hostile")
""",
        stops=_FILES,
    ),
    _case(
        "masked-files",
        "Reads the host's memory, keys, timers and firmware from /proc and /sys.",
        """
def read(path):
    content = open(path, "rb").read(4096)
    if not content:
        raise OSError(errno.ENODATA, "empty")
    return content[:20]

for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/latency_stats",
             "/proc/kmsg", "/proc/kpageflags", "/proc/kallsyms-raw", "/proc/config.gz-raw", "/proc/vmallocinfo"):
    refused(path, read, path)
for folder in ("/sys/firmware", "/proc/acpi", "/proc/scsi", "/sys/kernel/debug", "/sys/kernel/security"):
    def entries():
        found = os.listdir(folder)
        if not found:
            raise OSError(errno.ENODATA, "empty")
        return found
    refused(folder, entries)
""",
        stops="The engine masks them, and it is not root.",
    ),
    _case(
        "write-to-root",
        "Writes into its own image: programs, passwords, configuration.",
        """
for path in ("/hostile", "/etc/passwd", "/usr/bin/hostile", "/app/main.py", "/var/tmp/hostile", "/run/hostile",
             "/open/hostile", "/dev/hostile", "/sys/fs/cgroup/hostile", "/etc/hosts", "/etc/hostname"):
    refused(path, write, path)
""",
        stops="The root is read-only.",
        walls=("read-only-root",),
        files=(
            member("open", type=b"5", mode=0o777),
            member("etc/passwd", b"nobody:x:65534:65534::/:/bin/sh\n", mode=0o666),
        ),
    ),
    _case(
        "write-to-input",
        "Changes, removes and renames its inputs, and leaves something among them.",
        """
task = str(INPUT / "task.json")
refused("change", write, task)
refused("add", write, str(INPUT / "hostile"))
refused("remove", os.remove, task)
refused("rename", os.rename, task, task + "x")
refused("mode", os.chmod, str(INPUT), 0o777)
refused("time", os.utime, task)
options = [line.split()[5] for line in open("/proc/self/mountinfo") if line.split()[4] == "/input"]
equal("read-only", [option.split(",")[0] for option in options], ["ro"])
""",
        stops="/input is mounted read-only, and belongs to root.",
        walls=("input-read-only",),
    ),
    _case(
        "run-what-it-wrote",
        "Writes a program into each writable place, and runs it.",
        """
import shutil
for folder in ("/tmp", "/output", "/dev/shm"):
    program = f"{folder}/true"
    shutil.copyfile("/bin/true", program)
    os.chmod(program, 0o755)
    def run():
        status = in_child(os.execv, program, [program])
        if status:
            raise OSError(errno.EACCES, "refused")
    refused(folder, run)
    os.remove(program)
""",
        stops="Every writable place is mounted noexec.",
        walls=("tmp-noexec", "output-noexec"),
    ),
    Case(
        "mount-options",
        "kernel",
        "Reads how its writable places are mounted, for one that takes setuid files or devices.",
        "nosuid, nodev and noexec on each of them.",
        program="""
mounts = {}
for line in open("/proc/self/mountinfo"):
    fields = line.split()
    mounts[fields[4]] = set(fields[5].split(",")) | set(line.split(" - ")[1].split()[2].split(","))
for place in ("/tmp", "/output", "/dev/shm", "/dev/mqueue"):
    for option in ("nosuid", "nodev", "noexec"):
        say(f"{place} {option}", option in mounts.get(place, ()), held=place not in mounts or option in mounts[place])
polite()
""",
        walls=("tmp-nosuid", "tmp-nodev", "tmp-noexec", "output-nosuid", "output-nodev", "output-noexec"),
        # gVisor's own kernel shows its mounts otherwise; what they do is tried by run-what-it-wrote and setuid-file
        emulated=tuple(
            f"{place} {option}"
            for place in ("/tmp", "/output", "/dev/shm", "/dev/mqueue")
            for option in ("nosuid", "nodev", "noexec")
        ),
    ),
    _case(
        "other-processes",
        "Looks for processes of the host or of other containers, to signal them.",
        """
seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
measured("processes in sight", len(seen), 2)
for process in (2, 3, 1000, os.getppid() + 100000):
    refused(f"signal {process}", os.kill, process, 0) if process not in seen else None
""",
        stops="A PID namespace of its own.",
    ),
    _case(
        "planted-inputs",
        "Brings files of its own at /input, to read them as if the platform had given them.",
        'equal("planted", [name for name in os.listdir("/input") if "planted" in name], [])',
        stops="What the image has at /input does not get into the volume (NoCopy).",
        walls=("input-nocopy",),
        files=(member("input/planted", b"x"),),
    ),
    _case(
        "planted-outputs",
        "Brings finished files at /output, owned by root.",
        'equal("planted", os.listdir("/output"), [])',
        stops="What the image has at /output does not get into the volume (NoCopy).",
        walls=("output-nocopy",),
        files=(member("output/planted", b"x"),),
    ),
    _case(
        "links-at-our-mounts",
        "Brings links where the platform mounts: /output and /tmp lead to the host's /etc and elsewhere.",
        """
engines = {"hosts", "hostname", "resolv.conf"}  # empty files, for what the engine mounts in /etc
equal("what is in /output", sorted(set(os.listdir("/output")) - engines), [])
write("/tmp/passwd")
write("/output/passwd")
equal("the name in /etc", open("/etc/hostname").read().strip(), "anomed")
os.remove("/output/passwd")
""",
        stops="The engine resolves mount points inside the image's own root.",
        files=(
            member("output", type=b"2", linkname="../../../../etc"),
            member("tmp", type=b"2", linkname="/var/tmp"),
        ),
    ),
    _case(
        "link-to-proc",
        "Brings /input as a link to /proc, so that its inputs would be mounted over the host's processes.",
        "",
        stops="The engine refuses to mount there; it is the image's fault, not the platform's. gVisor may mount it: "
        "over the processes of the container's own kernel.",
        expected=rehearsal("crashed", "could not be started"),
        gvisor=(rehearsal("crashed"), SCORED),
        silent=True,
        files=(member("input", type=b"2", linkname="../../../../proc"),),
    ),
]
