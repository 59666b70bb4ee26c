"""Taking more than a run's share of time, and outliving it."""

from tests.hostile.model import SCORED, Case, private, rehearsal

_TIME = "The worker kills it when its time is up."


def _case(id: str, tries: str, program: str, stops: str, **more) -> Case:
    return Case(id, "resources", tries, stops, program=program, **more)


CASES = [
    _case(
        "processor-for-ever",
        "Computes past its time, on private data only.",
        'end_politely_unless("private")\nsay("spinning", "yes")\nwhile True:\n    pass',
        stops=_TIME,
        expected=private("timeout"),
    ),
    _case(
        "all-processors",
        "Computes in four processes at once.",
        """
import time
begun = time.monotonic()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        while time.monotonic() < begun + 3:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
used = os.times()
share = (used.children_user + used.children_system) / (time.monotonic() - begun)
measured("processors", round(share, 2), 1.6)  # four take what there is: two, on the smallest machine
polite()
""",
        stops="The kernel gives it the share that the challenge allows (NanoCpus).",
        walls=("processors",),
        emulated=("processors",),  # gVisor counts who waits for its share as computing; the kernel saw 0.8
    ),
    _case(
        "signals-ignored",
        "Ignores every signal and sleeps.",
        """
import signal, time
for number in range(1, 65):
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_IGN)
say("sleeping", "yes")
time.sleep(600)
""",
        stops=_TIME + " SIGKILL cannot be ignored.",
        expected=rehearsal("timeout"),
    ),
    _case(
        "stops-itself",
        "Stops all its processes (SIGSTOP), so that nobody is left who could end.",
        'import signal\nsay("stopping", "yes")\nos.kill(os.getpid(), signal.SIGSTOP)\npolite()',
        stops=_TIME,
        expected=rehearsal("timeout"),
    ),
    _case(
        "double-fork",
        "Leaves a process behind that goes on writing scores after it has ended well.",
        """
import time
say("leaving one behind", "yes")
polite()
first = os.getpid()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while os.path.exists(f"/proc/{first}"):
            time.sleep(0.01)
        while True:
            with contextlib.suppress(OSError):
                write(OUTPUT / "scores.csv", "changed later")
    os._exit(0)
os.wait()
""",
        stops="All processes end with the first one, before anything is read; on gVisor a moment later, to spoil "
        "the image's own scores at most.",
        gvisor=(SCORED, rehearsal("output_invalid")),
    ),
    _case(
        "zombies",
        "Leaves two hundred children that nobody waits for.",
        """
import time
for _ in range(200):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
deadline = time.monotonic() + 3
while time.monotonic() < deadline:
    states = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                states.append(open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0])
    if states.count("Z") < 20:
        break
    time.sleep(0.2)
measured("zombies", states.count("Z"), 20)
polite()
""",
        stops="The container's init (Init) waits for them.",
        walls=("init",),
    ),
    _case(
        "false-witness",
        "Ends with the status of a container that was killed for memory, without having been.",
        'say("ends with", 137)\npolite()\nsys.stdout.flush()\nos._exit(137)',
        stops="The reason comes from the kernel's mark; on gVisor, which ends so for memory, it misleads its team.",
        expected=rehearsal("crashed", "137"),
        gvisor=(rehearsal("out_of_memory"),),
    ),
    _case(
        "kills-all",
        "Kills every process that it can see, its own init too.",
        'import signal\nsay("killing", "yes")\nos.kill(-1, signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)',
        stops="A PID namespace of its own: it kills itself alone.",
        expected=rehearsal("crashed"),
    ),
]
