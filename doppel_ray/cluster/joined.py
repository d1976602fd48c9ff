"""Ask the nodes that join a cluster later what `connect` asks those that are there at the start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from doppel_ray.cluster.nodes import call_on_node, installed_here, versions_that_differ


class JoinedNodes:
    """Asks each new node whether it sees a file and runs this code. Waits for no answer.

    Args:
        file: that every node must see, at the same path.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked = {node["NodeID"] for node in ray.nodes()}
        self.pending: dict[Any, str] = {}
        """Call in progress -> address of its node."""

    def notice(self) -> str | None:
        """Ask nodes that are new; return what is wrong with those that have answered, or None."""
        for node in ray.nodes():
            if node["Alive"] and node["NodeID"] not in self.asked:
                self.asked.add(node["NodeID"])
                self.pending[call_on_node(node["NodeID"], _answer(), str(self.file))] = node["NodeManagerAddress"]
        if not self.pending:
            return None
        answered, _ = ray.wait(list(self.pending), num_returns=len(self.pending), timeout=0, fetch_local=True)
        return "\n".join(filter(None, (self._fault(self.pending.pop(call), call) for call in answered))) or None

    def _fault(self, address: str, call: Any) -> str | None:
        """Return what is wrong with a node, or None."""
        try:
            sees, installed = ray.get(call)
        except ray.exceptions.RayError:
            return None  # it has left again
        faults = [] if sees else [f"does not see {self.file.parent}"]
        if wrong := versions_that_differ(installed, installed_here()()):
            faults.append(f"has {', '.join(wrong)}")
        if not faults:
            return None
        return (
            f"{address} has joined the cluster, but {' and '.join(faults)}: trials fail there. Remove it (`ray stop` "
            "there), or mount the file system of run.dir at the same path and install this project as it is here"
        )


def _answer() -> Callable[[str], tuple[bool, dict[str, str]]]:
    """Return a function that Ray sends by value, so that it runs on nodes with another version of this module."""
    installed = installed_here()

    def answer(file: str) -> tuple[bool, dict[str, str]]:
        import pathlib

        return pathlib.Path(file).is_file(), installed()

    return answer
