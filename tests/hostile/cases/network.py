"""Reaching anything outside of the container."""

from tests.hostile.model import Case

_CONNECT = """
import socket

def connect(address, port, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as talk:
        talk.settimeout(1)
        talk.connect((address, port))
        talk.send(b"patients")
        if kind == socket.SOCK_DGRAM:
            return talk.recv(100)
"""
_ONLY_LOOPBACK = (
    "The container has no network: no interface but a loopback of its own (NetworkMode none, NetworkDisabled)."
)
_FAMILIES = "Our seccomp profile allows UNIX, INET and INET6 sockets only."


def _case(id: str, tries: str, program: str, stops: str = _ONLY_LOOPBACK, **more) -> Case:
    return Case(id, "network", tries, stops, program=f"{_CONNECT}\n{program}\npolite()\n", **more)


CASES = [
    _case(
        "tcp-internet",
        "Connects by TCP to well-known addresses of the internet.",
        'for address in ("1.1.1.1", "8.8.8.8", "93.184.216.34"):\n    refused(address, connect, address, 443)',
    ),
    _case(
        "udp-internet",
        "Sends the data away in UDP packets.",
        'refused("8.8.8.8", connect, "8.8.8.8", 53, socket.AF_INET, socket.SOCK_DGRAM)',
    ),
    _case(
        "dns",
        "Smuggles data in the names that it looks up.",
        """
refused("getaddrinfo", socket.getaddrinfo, "patient-1.example.org", 80)
for resolver in ("127.0.0.11", "172.17.0.1", "9.9.9.9"):
    refused(resolver, connect, resolver, 53, socket.AF_INET, socket.SOCK_DGRAM)
""",
    ),
    _case(
        "metadata-address",
        "Asks a cloud's metadata service for the machine's credentials.",
        'refused("169.254.169.254", connect, "169.254.169.254", 80)\n'
        'refused("fd00:ec2::254", connect, "fd00:ec2::254", 80, socket.AF_INET6)',
    ),
    _case(
        "host-bridge",
        "Talks to a service on the host through the engine's bridge, by TCP and UDP.",
        """
refused("tcp", connect, TARGETS["bridge"], TARGETS["tcp"])
refused("udp", connect, TARGETS["bridge"], TARGETS["udp"], socket.AF_INET, socket.SOCK_DGRAM)
""",
        walls=("network",),
    ),
    _case(
        "host-loopback",
        "Talks to a service that listens on the host's own loopback.",
        """
refused("tcp", connect, "127.0.0.1", TARGETS["tcp"])
refused("udp", connect, "127.0.0.1", TARGETS["udp"], socket.AF_INET, socket.SOCK_DGRAM)
""",
        stops="The loopback that it sees is its own.",
        walls=("network-host",),
    ),
    _case(
        "neighbour",
        "Talks to another container on the engine's default bridge.",
        'refused("tcp", connect, TARGETS["neighbour"], TARGETS["neighbour_port"])',
        walls=("network",),
    ),
    _case(
        "interfaces",
        "Looks for an interface to use.",
        """
names = sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line)
others = [name for name in names if name not in ("lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0")]
equal("interfaces", others, [])
equal("routes", [line for line in open("/proc/net/route")][1:], [])
""",
        walls=("network",),
    ),
    _case(
        "broadcast",
        "Broadcasts to whoever listens nearby, by IPv4 and IPv6 multicast.",
        """
def shout(address, family):
    with socket.socket(family, socket.SOCK_DGRAM) as talk:
        talk.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return talk.sendto(b"patients", (address, 5353))

refused("255.255.255.255", shout, "255.255.255.255", socket.AF_INET)
refused("224.0.0.251", shout, "224.0.0.251", socket.AF_INET)
refused("ff02::1", shout, "ff02::1", socket.AF_INET6)
""",
        walls=("network",),
    ),
    _case(
        "raw-socket",
        "Writes IP packets of its own making.",
        """
for protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_RAW):
    refused(f"protocol {protocol}", lambda p=protocol: socket.socket(socket.AF_INET, socket.SOCK_RAW, p).close())
""",
        stops="It has no capabilities (NET_RAW).",
    ),
    _case(
        "packet-socket",
        "Listens to the wire below IP.",
        'refused("AF_PACKET", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300).close())',
        stops=_FAMILIES,
    ),
    _case(
        "netlink",
        "Configures interfaces and listens to the kernel's events by netlink.",
        """
for protocol in (0, 3, 9, 12, 15, 16):
    refused(f"netlink {protocol}", lambda p=protocol: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, p).close())
""",
        stops=_FAMILIES + " gVisor answers ROUTE and UEVENT itself, about its own loopback.",
        walls=("seccomp",),
        emulated=("netlink 0", "netlink 15"),
    ),
    _case(
        "vsock",
        "Talks to the hypervisor by AF_VSOCK, which the engine's default profile leaves open.",
        """
def hypervisor(cid):
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as talk:
        talk.settimeout(1)
        talk.connect((cid, TARGETS["vsock"]))

for cid in (1, 2, 3):
    refused(f"cid {cid}", hypervisor, cid)
refused("socket", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close())
""",
        stops=_FAMILIES,
        walls=("seccomp", "seccomp-default"),
    ),
    _case(
        "odd-families",
        "Opens sockets of the rarer families, whose kernel code few people read.",
        """
# AX25, IPX, APPLETALK, X25, ROSE, KEY, ASH, RDS, IRDA, PPPOX, LLC, IB, CAN, TIPC, BLUETOOTH, RXRPC, PHONET, ALG, NFC,
# KCM, QIPCRTR, SMC, XDP, MCTP
for family in (3, 4, 5, 9, 11, 15, 18, 21, 23, 24, 26, 27, 29, 30, 31, 33, 35, 38, 39, 41, 42, 43, 44, 45):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind).close()
        except OSError as error:
            got = errno.errorcode.get(error.errno)
        else:
            got = "WORKED"
            break
    say(f"family {family}", got, held=got != "WORKED")
""",
        stops=_FAMILIES,
    ),
    _case(
        "engine-socket",
        "Asks the Docker Engine, or containerd, to start a container as it likes.",
        """
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"):
    def ask():
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(path)
    refused(path, ask)
abstract = [line.split()[-1] for line in open("/proc/net/unix") if "@" in line]
for name in abstract:
    def ask_abstract():
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect("\\0" + name[1:])
    refused(f"abstract {name}", ask_abstract)
equal("abstract sockets in sight", abstract, [])
""",
        stops="No socket of the host is mounted, and abstract ones belong to a network namespace of their own.",
        walls=("network-host",),
    ),
]
