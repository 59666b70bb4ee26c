"""The manager of a Docker Swarm, asked for one thing only: where there is room for a run.

A reservation is a service with one task, the holder's image, which sleeps on a node for as long as the run needs its
processors, memory and GPUs. Nothing of a run is ever part of it: tasks of a swarm lack most walls of our containers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sandbox import holder
from sandbox.connection import Connection, asking, ignoring_gone
from sandbox.engine import ATTEMPT, RUN
from sandbox.limits import Limits
from sandbox.walls import MEGABYTE, NOBODY

HOST = "anomed.host"  # the label of a node that names its row among our hosts
GPU = "gpu"  # what nodes call their GPUs in `node-generic-resources`, each by its UUID: gpu=GPU-...
_ENDED = frozenset({"complete", "failed", "shutdown", "rejected", "orphaned", "remove"})


@dataclass(frozen=True)
class Node:
    """A machine of the swarm. `host` is the name of its row, if it has the label; `gpus` are UUIDs."""

    id: str
    name: str
    host: str
    ready: bool
    gpus: tuple[str, ...]
    manager: bool


@dataclass(frozen=True)
class Reservation:
    """How far a reservation is: `running` on a node, with the UUIDs of its GPUs; `ended`; or waiting, and why."""

    node: str = ""
    gpus: list[str] = field(default_factory=list)
    running: bool = False
    ended: bool = False
    why: str = ""


class Swarm(Connection):
    """The line to the manager. May be shared by threads."""

    def nodes(self) -> list[Node]:
        """All machines of the swarm, up or not."""
        with asking("list the nodes of the swarm"):
            return [_node(found) for found in self._brief.nodes()]

    def label(self, node: Node, host: str) -> None:
        """Names the row of a node among our hosts."""
        with asking("label the node"):
            found = self._client.inspect_node(node.id)
            spec = {**found["Spec"], "Labels": {**(found["Spec"].get("Labels") or {}), HOST: host}}
            self._client.update_node(node.id, found["Version"]["Index"], spec)

    def reserve(self, run: str, attempt: int, limits: Limits, image: str, without: Iterable[str]) -> str:
        """Asks for room on any node but those; returns the reservation's id. It waits until there is room.

        `image` is the id of the holder's image: the engine pulls no image that is given by its id.
        """
        memory = limits.memory_mb + limits.output_mb  # outputs live in memory too
        reserved: dict[str, Any] = {"NanoCPUs": int(limits.cpus * 10**9), "MemoryBytes": memory * MEGABYTE}
        if limits.gpus:
            reserved["GenericResources"] = [{"DiscreteResourceSpec": {"Kind": GPU, "Value": limits.gpus}}]
        task = {
            "ContainerSpec": {
                "Image": image,
                "Command": [holder.PROGRAM],
                "User": NOBODY,
                "ReadOnly": True,
                "CapabilityDrop": ["ALL"],
                "StopSignal": "SIGKILL",  # it sleeps through any other
            },
            "Resources": {"Limits": {"MemoryBytes": 16 * MEGABYTE, "Pids": 16}, "Reservations": reserved},
            "RestartPolicy": {"Condition": "none"},  # a run whose node is gone is given back, and placed anew
            "Placement": {"Constraints": [f"node.id!={node}" for node in without]},
            "LogDriver": {"Name": "none"},
        }
        labels = self._labels(**{RUN: run, ATTEMPT: str(attempt)})
        with asking("reserve room in the swarm"):
            created = self._client.create_service(task, name=f"{self.prefix}-{run}-{attempt}", labels=labels)
        return str(created["ID"])

    def look(self, service: str) -> Reservation:
        """How far it is. Raises NotThere if it is gone."""
        with asking("look at the reservation"):
            self._brief.inspect_service(service)  # of one that is gone there may still be a task
            tasks = self._brief.tasks({"service": service})
        if not tasks:
            return Reservation(why="the service has no task yet")
        [task] = tasks
        status, wanted = task["Status"], task["DesiredState"]
        # the task of a node that does not answer still counts as running, but is not wanted any more
        return Reservation(
            node=str(task.get("NodeID") or ""),
            gpus=_named(task.get("GenericResources") or ()),
            running=status["State"] == "running" and wanted == "running",
            ended=status["State"] in _ENDED or wanted in _ENDED,
            why=str(status.get("Err") or status.get("Message") or ""),
        )

    def reservations(self, **labels: str) -> list[tuple[str, dict[str, str]]]:
        """The ids and labels of all reservations of this installation that carry these labels."""
        wanted = [f"{name}={value}" for name, value in self._labels(**labels).items()]
        with asking("list the reservations"):
            services = self._brief.services(filters={"label": wanted})
        return [(str(service["ID"]), dict(service["Spec"]["Labels"])) for service in services]

    def release(self, service: str) -> None:
        """Gives the room back. One that is gone already is no error."""
        with asking("release the reservation"):
            ignoring_gone(self._brief.remove_service, service)

    def form(self, address: str) -> None:
        """Makes this engine the manager of a swarm, reached by the other nodes at that address, unless it is one."""
        with asking("begin a swarm"):
            if self._client.info()["Swarm"]["LocalNodeState"] == "inactive":
                self._client.init_swarm(advertise_addr=address)

    def invitation(self) -> tuple[list[str], str]:
        """What an engine needs to join: addresses of managers, and the secret token."""
        with asking("ask the swarm how to join"):
            managers = self._client.info()["Swarm"]["RemoteManagers"]
            token = self._client.inspect_swarm()["JoinTokens"]["Worker"]
        return [manager["Addr"] for manager in managers], str(token)

    def join(self, managers: list[str], token: str, address: str) -> str:
        """Makes this engine a node of a swarm, unless it is one; returns the node's id."""
        with asking("join the swarm"):
            if self._client.info()["Swarm"]["LocalNodeState"] == "inactive":
                self._client.join_swarm(managers, token, advertise_addr=address)
            return str(self._client.info()["Swarm"]["NodeID"])


def _node(found: dict[str, Any]) -> Node:
    resources = found["Description"]["Resources"].get("GenericResources") or ()
    available = found["Spec"]["Availability"] == "active" and found["Status"]["State"] == "ready"
    return Node(
        id=str(found["ID"]),
        name=str(found["Description"]["Hostname"]),
        host=str((found["Spec"].get("Labels") or {}).get(HOST, "")),
        ready=available,
        gpus=tuple(_named(resources)),
        manager="ManagerStatus" in found,
    )


def _named(resources: Iterable[dict[str, Any]]) -> list[str]:
    named = (resource.get("NamedResourceSpec") or {} for resource in resources)
    return [str(resource["Value"]) for resource in named if resource.get("Kind") == GPU]
