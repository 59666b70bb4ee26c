"""Taking more than a run's share of the machine.

Every attacker bounds itself, so that it harms nobody where a wall is taken away.
"""

from tests.hostile.model import SCORED, Case, private, rehearsal

_MEMORY = "The kernel ends it at its memory limit; swap counts as well."
_TMPFS = "/tmp is a tmpfs of a fixed size, which also counts as the container's memory."


def _case(id: str, tries: str, program: str, stops: str, **more) -> Case:
    return Case(id, "resources", tries, stops, program=program, **more)


CASES = [
    _case(
        "memory",
        "Takes more memory than it may, on private data only.",
        """
end_politely_unless("private")
say("begun", "yes")
hoard = [bytearray(b"x" * (1 << 20)) for _ in range(300)]
say("300 MB", "WORKED", held=False)
polite()
""",
        stops=_MEMORY,
        expected=private("out_of_memory"),
        walls=("memory",),
    ),
    _case(
        "memory-in-a-child",
        "Lets a child run out of memory, and says itself that all is well.",
        """
def hoard():
    more = [bytearray(b"x" * (1 << 20)) for _ in range(300)]
    say("300 MB", "WORKED", held=False)

say("begun", "yes")
say("child", in_child(hoard))
polite()
""",
        stops="The kernel's own mark on the container is read, not what the program says.",
        expected=rehearsal("out_of_memory"),
        walls=("memory",),
    ),
    _case(
        "memory-files",
        "Hides memory in files without a name (memfd).",
        """
say("begun", "yes")
handle = os.memfd_create("hoard")
for _ in range(300):
    os.write(handle, bytes(1 << 20))
say("300 MB", "WORKED", held=False)
polite()
""",
        stops=_MEMORY,
        expected=rehearsal("out_of_memory"),
        walls=("memory",),
    ),
    _case(
        "memory-pipes",
        "Hides memory in the buffers of a thousand pipes.",
        """
import fcntl
say("begun", "yes")
total, pipes = 0, []
try:
    for _ in range(400):
        ends = os.pipe2(os.O_NONBLOCK)
        pipes.append(ends)
        with contextlib.suppress(OSError):
            fcntl.fcntl(ends[1], 1031, 1 << 20)
        with contextlib.suppress(BlockingIOError):
            while total < 300 << 20:
                total += os.write(ends[1], bytes(1 << 16))
except OSError:
    pass
measured("bytes in pipes", total, 256 << 20)
for ends in pipes:
    os.close(ends[0]), os.close(ends[1])
polite()
""",
        stops="Pipe buffers count as its memory, and a user has few large ones.",
        gvisor=(rehearsal("out_of_memory"),),
    ),
    _case(
        "swap",
        "Looks for swap to push the host's memory out with.",
        """
found = {}
for path, name in (("memory/memory.limit_in_bytes", "memory"), ("memory/memory.memsw.limit_in_bytes", "with swap"),
                   ("memory.max", "memory"), ("memory.swap.max", "swap")):
    with contextlib.suppress(OSError):
        found[name] = open(f"/sys/fs/cgroup/{path}").read().strip()
say("limits", found)
if "with swap" in found:
    equal("memory and swap together", found["with swap"], found["memory"])
if "swap" in found:
    equal("swap", found["swap"], "0")
polite()
""",
        stops="The limit of memory with swap is that of memory alone.",
        walls=("swap",),
    ),
    _case(
        "cgroup-limits",
        "Reads the limits that the kernel keeps for it.",
        """
def limit(*paths):
    for path in paths:
        with contextlib.suppress(OSError):
            return open(f"/sys/fs/cgroup/{path}").read().split()[0]
    return "unseen"

task = json.loads((INPUT / "task.json").read_text())["limits"]
memory = limit("memory/memory.limit_in_bytes", "memory.max")
pids = limit("pids/pids.max", "pids.max")
quota = limit("cpu/cpu.cfs_quota_us", "cpu.max")
say("memory", memory, held=memory == "unseen" or int(memory) == task["memory_mb"] << 20)
say("processes", pids, held=pids == "unseen" or pids == str(task["pids"]))
say("processor", quota, held=quota == "unseen" or quota == str(int(task["cpus"] * 100000)))
polite()
""",
        stops="Memory, processes and processors are bounded by the container's own control groups.",
        walls=("memory", "pids", "processors"),
        # a run in gVisor gets some more, for gVisor's own needs
        emulated=("memory", "processes", "processor"),
    ),
    _case(
        "fork-bomb",
        "Forks as often as it can.",
        """
import time
say("begun", "yes")
children = []
try:
    for _ in range(400):
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        children.append(child)
except OSError as error:
    say("stopped by", errno.errorcode[error.errno])
measured("processes", len(children), 256)
import signal
for child in children:
    os.kill(child, signal.SIGKILL)
for child in children:
    os.waitpid(child, 0)
polite()
""",
        stops="The number of processes and threads is limited (PidsLimit). Processes in gVisor take its memory.",
        walls=("pids",),
        gvisor=(rehearsal("out_of_memory"), rehearsal("crashed")),
    ),
    _case(
        "thread-bomb",
        "Starts as many threads as it can.",
        """
import threading
say("begun", "yes")
threading.stack_size(64 << 10)
stop, threads = threading.Event(), []
try:
    for _ in range(400):
        thread = threading.Thread(target=stop.wait, args=(20,), daemon=True)
        thread.start()
        threads.append(thread)
except (RuntimeError, OSError) as error:
    say("stopped by", error)
measured("threads", len(threads), 256)
stop.set()
for thread in threads:
    thread.join()
polite()
""",
        stops="Threads count as processes (PidsLimit). gVisor's threads are bounded as a whole, by more.",
        walls=("pids",),
        gvisor=(SCORED, rehearsal("out_of_memory"), rehearsal("crashed")),
        emulated=("threads",),
    ),
    _case(
        "disk-tmp",
        "Fills /tmp.",
        'measured("bytes in /tmp", fill("/tmp/hoard", 200 << 20), 64 << 20)\nos.remove("/tmp/hoard")\npolite()',
        stops=_TMPFS,
        walls=("tmp-size",),
    ),
    _case(
        "disk-shm",
        "Fills /dev/shm.",
        """
measured("bytes in /dev/shm", fill("/dev/shm/hoard", 100 << 20), 16 << 20)
os.remove("/dev/shm/hoard")
polite()
""",
        stops="/dev/shm is a tmpfs of 16 MB.",
        walls=("shm-size",),
    ),
    _case(
        "disk-output",
        "Fills /output.",
        'measured("bytes in /output", fill("/output/hoard", 100 << 20), 12 << 20)\npolite()',
        stops="/output is a tmpfs volume a little larger than what the challenge allows.",
        expected=rehearsal("output_too_large"),
        walls=("output-size",),
    ),
    _case(
        "disk-elsewhere",
        "Looks through all folders for another place that it can write to.",
        """
found = []
for folder, folders, _files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in
                  ("/proc", "/tmp", "/output", "/dev/shm", "/dev/mqueue", "/usr", "/venv", "/sys", "/lib")]
    path = os.path.join(folder, "hostile")
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        found.append(folder)
equal("other places", found, [])
for place in ("/tmp", "/output", "/dev/shm", "/dev/mqueue"):
    with contextlib.suppress(OSError):
        write(f"{place}/hostile") and os.remove(f"{place}/hostile")
polite()
""",
        stops="The root is read-only; an image's own VOLUME is refused.",
        walls=("read-only-root",),
    ),
    _case(
        "inodes-tmp",
        "Makes empty files in /tmp without end.",
        """
made = 0
with contextlib.suppress(OSError):
    os.mkdir("/tmp/many")
    for made in range(30000):
        os.close(os.open(f"/tmp/many/{made}", os.O_CREAT | os.O_WRONLY))
measured("files in /tmp", made, 10000)
polite()
""",
        stops="/tmp has 10,000 inodes.",
        walls=("tmp-inodes",),
        # gVisor's tmpfs counts no inodes; each takes memory, which is the container's
        emulated=("files in /tmp",),
    ),
    _case(
        "message-queues",
        "Fills the kernel's POSIX message queues.",
        """
import ctypes
attributes = (ctypes.c_long * 8)(0, 10, 8192, 0)
total = 0
with contextlib.suppress(OSError):
    for number in range(400):
        queue = syscall(240, f"hostile{number}".encode(), os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o600,
                        ctypes.addressof(attributes))
        for _ in range(10):
            syscall(242, queue, bytes(8192), 8192, 0, 0)
            total += 8192
measured("bytes in queues", total, 1 << 20)
polite()
""",
        stops="A user's message queues hold 800 kB, in an IPC namespace of their own.",
    ),
    _case(
        "system-v-memory",
        "Takes shared memory that no process owns (SysV).",
        """
kept = 0
with contextlib.suppress(OSError):
    for _ in range(300):
        identifier = syscall(29, 0, 1 << 20, 0o1600)
        kept += 1
        address = syscall(30, identifier, 0, 0)
        import ctypes
        ctypes.memset(address, 1, 1 << 20)
        syscall(67, address)
say("300 MB", f"{kept} MB", held=kept < 300)
polite()
""",
        stops=_MEMORY + " It goes with the IPC namespace.",
        expected=rehearsal("out_of_memory"),
        silent=True,
        walls=("memory",),
    ),
    _case(
        "file-size",
        "Makes a file of 2 GB without writing it, in /tmp.",
        """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
refused("2 GB", os.truncate, os.open("/tmp/large", os.O_CREAT | os.O_RDWR), 2 << 30)
polite()
""",
        stops="Files end at 1 GB (ulimit fsize).",
        walls=("file-size",),
    ),
    _case(
        "open-files",
        "Opens files until it may not any more.",
        """
handles = []
with contextlib.suppress(OSError):
    for _ in range(3000):
        handles.append(os.open("/dev/null", os.O_RDONLY))
for handle in handles:
    os.close(handle)
measured("open files", len(handles), 1024)
polite()
""",
        stops="A process has 1,024 files (ulimit nofile).",
        walls=("open-files",),
    ),
    _case(
        "core-dump",
        "Crashes on purpose, so that the kernel writes its memory where the host's core_pattern says.",
        """
import resource
equal("limit", resource.getrlimit(resource.RLIMIT_CORE), (0, 0))
status = in_child(os.abort)
say("dumped", os.WCOREDUMP(status), held=not os.WCOREDUMP(status))
polite()
""",
        stops="Core dumps have no room (ulimit core).",
        walls=("core",),
    ),
    _case(
        "log-without-end",
        "Prints 8 MB of lines.",
        """
for _ in range(80):
    print("\\n".join(["x" * 99] * 1000))
say("printed", "8 MB")
polite()
""",
        stops="The engine keeps twice 1 MB, and we keep the last 1 MB of that.",
        walls=("log",),
        check=lambda entry: [
            f"{len(log)} bytes of log" for log in entry.seen.logs.values() if len(log) > (1 << 20) + 4096
        ],
    ),
    _case(
        "line-without-end",
        "Prints one line of 8 MB, of colours and control characters.",
        """
for _ in range(80):
    sys.stdout.write("\\x1b[31m\\u202e\\x07\\x00" * 10000)
sys.stdout.flush()
say("printed", "one line")
polite()
""",
        stops="Logs are cut by bytes, and shown without what moves a cursor.",
        check=lambda entry: ["a control character is shown"] if "\x1b" in entry.seen.logs["rehearsal"] else [],
    ),
]
