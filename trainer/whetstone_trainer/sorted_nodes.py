"""The nodes of an ONNX graph in an order in which each comes after those that it needs.

The format wants it, some converters do not keep it, and the engine does not mind."""

import heapq
from collections.abc import Iterator

from onnx import GraphProto, NodeProto

from whetstone_trainer.errors import TrainerError


def sort_nodes(graph: GraphProto) -> bool:
    """Sorts the graph and those inside its nodes; False where they were sorted. Raises MODEL_INVALID for a circle."""
    inner = [sort_nodes(part) for node in graph.node for part in graphs_of(node)]
    made_by = {name: n for n, node in enumerate(graph.node) for name in node.output if name}
    needs = [{made_by[name] for name in _names(node) if name in made_by} for node in graph.node]
    if all(max(needed, default=-1) < n for n, needed in enumerate(needs)):
        return any(inner)
    waiting = [len(needed) for needed in needs]
    users: list[list[int]] = [[] for _ in needs]
    for n, needed in enumerate(needs):
        for other in needed:
            users[other].append(n)
    ready = [n for n, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        n = heapq.heappop(ready)
        order.append(n)
        for user in users[n]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(needs):
        raise TrainerError(
            "MODEL_INVALID", f"{len(needs) - len(order)} nodes of the graph need each other in a circle."
        )
    in_order = GraphProto()
    in_order.node.extend(graph.node[n] for n in order)
    del graph.node[:]
    graph.node.extend(in_order.node)
    return True


def graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _names(node: NodeProto) -> Iterator[str]:
    """What a node needs: its inputs, and what the graphs inside it take from outside."""
    yield from node.input
    for graph in graphs_of(node):
        for inner in graph.node:
            yield from _names(inner)
        yield from (value.name for value in graph.output)
