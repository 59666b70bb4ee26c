"""What an attack that is a web server tries, beside what any program can: the gateway is in its own loopback.

Root may be its user, so what is left of root is tried here as well.
"""

from tests.hostile.model import Case, refused, rehearsal

_SERVER = """
import http.server, io, socket, threading, urllib.error, urllib.request
import numpy as np

CHALLENGE, TARGET = (f"http://{os.environ[name]}" for name in ("CHALLENGE_HOST", "ATTACK_TARGET_HOST"))
EVALUATION = "/data/attack-success-evaluation?data_split="

def fetch(url, body=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()

def pack(**arrays):
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()

def verdict(split="validation"):
    rows = np.load(io.BytesIO(fetch(CHALLENGE + EVALUATION + split)[1]))["X"]
    return pack(prediction=np.zeros(len(rows), dtype=bool))

def post(split="validation", body=None):
    return fetch(f"{CHALLENGE}/utility/deanonymizer?data_split={split}", verdict() if body is None else body)

def at_fit():
    pass

def at_evaluation():
    return post()

PROGRAM

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body=b"{}"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/fit":
            at_fit()
            self.answer(201)
        else:
            self.answer(*at_evaluation())

http.server.ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever()
"""
_ROUTES = "The gateway serves what its plan names: the routes of an attack, each kept post once. It is the role."
_NO_GVISOR = (refused("gVisor"),)


def _case(id: str, tries: str, program: str, stops: str, *, user: str = "65534:65534", **more) -> Case:
    config = {"Labels": {"org.anomed.contract": "web/1"}, "User": user}
    whole = _SERVER.replace("PROGRAM", program)
    return Case(f"web-{id}", "web", tries, stops, program=whole, config=config, gvisor=_NO_GVISOR, **more)


CASES = [
    _case(
        "routes",
        "Asks for what a defense gets, for the gateway's own files, and for what its target is told.",
        """
def at_fit():
    for host in (CHALLENGE, TARGET):
        for route in ("/data/anonymizer/training", "/data/anonymizer/tuning", "/plan.json", "/../input/plan.json",
                      "/%2e%2e/input/answers.npz", "/answers.npz", "/data", "//etc/passwd"):
            equal(route, fetch(host + route)[0], 404)
    equal("as a defense", fetch(CHALLENGE + "/utility/anonymizer?data_split=validation", b"x")[0], 404)
    equal("fit of the target", fetch(TARGET + "/fit", b"")[0], 404)
    equal("another split", fetch(CHALLENGE + EVALUATION + "secret")[0], 400)
""",
        _ROUTES,
    ),
    _case(
        "again",
        "Posts a second verdict, and one about another split.",
        """
def at_evaluation():
    first = post()
    equal("again", post()[0], 403)
    equal("of another split", post("secret")[0], 400)
    return first
""",
        _ROUTES,
    ),
    _case(
        "bombs",
        "Sends its target and the platform archives that unpack to gigabytes, pickles, and far too large bodies.",
        """
import zipfile

def bomb():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("X.npy", "w") as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    return packed.getvalue()

def pickled():
    packed = io.BytesIO()
    np.savez(packed, X=np.array([{"a": 1}], dtype=object))
    return packed.getvalue()

def at_fit():
    for name, body in (("bomb", bomb()), ("pickle", pickled()), ("nonsense", b"PK" * 100)):
        status = fetch(TARGET + "/predict", body)[0]
        say(name, status, held=400 <= status < 500)
    with socket.create_connection(("127.0.0.1", 8001), timeout=10) as line:
        line.sendall(b"POST /utility/deanonymizer?data_split=validation HTTP/1.1\\r\\n")
        line.sendall(b"Content-Length: 99999999999\\r\\n\\r\\n")
        said = line.recv(100).split(b" ")[1]
    equal("a body without an end", said, b"413")
""",
        "The gateway bounds a body before it reads it, and an archive before it unpacks it. It knows no pickles.",
    ),
    _case(
        "flood",
        "Keeps hundreds of half-open requests to the gateway.",
        """
def at_fit():
    lines = []
    for _ in range(300):
        with contextlib.suppress(OSError):
            line = socket.create_connection(("127.0.0.1", 8001), timeout=5)
            line.sendall(b"GET /data/deanonymizer/members HTTP/1.1\\r\\nX: ")
            lines.append(line)
    say("half-open requests", len(lines))
    for line in lines:
        line.close()
    import time
    time.sleep(2)  # until its own requests find room again
""",
        "The gateway has room for a few requests at once, and hangs up on the others.",
    ),
    _case(
        "squat",
        "Listens where the gateway will, before it is there.",
        'held = socket.create_server(("127.0.0.1", 8001))\nsay("it listens", "yes")',
        "Then the exchange is over before it began: nobody can stand between a server and its gateway.",
        expected=rehearsal("crashed", "port 80 only"),
    ),
    _case(
        "neighbours",
        "Looks for the gateway's processes and files, for other servers, for the host and the internet.",
        """
def connect(address, port):
    with socket.create_connection((address, port), timeout=1):
        return "a line"

def at_fit():
    equal("folders", [name for name in ("/input", "/output", "/run/docker.sock") if os.path.exists(name)], [])
    commands = [Path(f"/proc/{one}/cmdline").read_bytes() for one in os.listdir("/proc") if one.isdigit()]
    equal("gateways among the processes", [one for one in commands if b"gateway" in one], [])
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    equal("interfaces", [line.split(":")[0].strip() for line in lines], ["lo"])
    for address in (TARGETS["bridge"], "172.17.0.2", "169.254.169.254", "1.1.1.1"):
        refused(address, connect, address, TARGETS["tcp"])
    refused("a name", socket.getaddrinfo, "example-anonymizer", 80)
""",
        "It shares a loopback with the gateway and nothing else; that loopback leads nowhere.",
    ),
    _case(
        "root",
        "Is root, and uses it.",
        """
import ctypes

def at_fit():
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    equal("capabilities", int(held.split()[1], 16), 1 << 0 | 1 << 6 | 1 << 7)  # CHOWN, SETGID, SETUID
    for folder in ("/", "/etc", "/app", "/usr", "/proc/sys/kernel", "/sys"):
        refused(f"write to {folder}", write, f"{folder}/hostile")
    blocked("mount", syscall, 165, b"none", b"/tmp", b"tmpfs", 0, 0)
    blocked("chroot", syscall, 161, b"/tmp")
    blocked("mknod of a disk", syscall, 133, b"/tmp/disk", 0o60666, 0x800)
    blocked("ptrace", syscall, 101, 16, 1, 0, 0)
    blocked("raw socket", syscall, 41, 2, 3, 255)
    blocked("sethostname", syscall, 170, b"x", 1)
    Path("/tmp/setuid").write_bytes(Path("/proc/self/exe").read_bytes()[:4096])
    os.chmod("/tmp/setuid", 0o4755)
    refused("execute from /tmp", os.execv, "/tmp/setuid", ["/tmp/setuid"])
""",
        "Root in there has three capabilities (CapDrop ALL, CapAdd), no new privileges, our seccomp profile, and a "
        "read-only root.",
        user="0",
    ),
    _case(
        "disk",
        "Fills /persistent_data and all else that it may write to.",
        """
def at_fit():
    measured("bytes kept", fill("/persistent_data/hoard", 100 << 20), 12 << 20)
    os.remove("/persistent_data/hoard")
    measured("bytes in /run", fill("/run/hoard", 100 << 20), 64 << 20)
    os.remove("/run/hoard")
    for folder in ("/", "/var", "/home", "/opt"):
        refused(f"write to {folder}", write, f"{folder}/hostile")
""",
        "Each place that can be written is a tmpfs of limited size, and counts as its memory.",
    ),
    _case(
        "no-end",
        "Answers GET / byte by byte, for ever.",
        """
class Drip(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        import time
        say("asked", "yes")
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
        while True:
            self.wfile.write(b" ")
            time.sleep(0.2)

http.server.ThreadingHTTPServer(("0.0.0.0", 80), Drip).serve_forever()
""",
        "The time of the whole exchange is limited, and so is each look.",
        expected=rehearsal("timeout"),
    ),
]
