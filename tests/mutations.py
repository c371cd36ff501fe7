"""Odd variants of recipes and of file contents, the same ones for the same seed."""

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 10**12, 10**20, 10**30, -(10**30), 1e30, 1e-30, 0.5),
    *(
        math.nan,
        math.inf,
        -math.inf,
        "",
        " ",
        "no",
        "a" * 300,
        "a\0b",
        "\x1b[31mred",
        "~",
        "~nobody/x",
        "..",
        "/",
        "\ud800",
    ),
    *(
        "a\\b",
        "C:\\data",
        "#ff0000",
        "1-10",
        "*",
        "0xff",
        "{stem}",
        "{",
        "$x^$",
        "é" * 50,
        b"bytes",
        [],
        {},
        [[]],
        [None],
    ),
    *([], {}, [[]], [None]),
    *([1, 2, 3], [[0, 0, 0]], ["a", "a"], {"a": 1}, {1: "a"}, {None: None}, {"name": "x"}, list(range(3000)), ("a",)),
    *({"classes": ["a"]}, {"width": 10**9, "height": 1}, [{"name": "s"}], {"path": "labels"}, 1 + 2j, {"a": {"b": {}}}),
)


def mutated_trees(tree: dict[str, Any], count: int, seed: int) -> Iterator[dict[Any, Any]]:
    """Copies of a tree of plain values with one to three changes each."""
    generator = random.Random(seed)
    for _ in range(count):
        variant = copy.deepcopy(tree)
        for _ in range(generator.randint(1, 3)):
            _change(variant, generator)
        yield variant


def _change(tree: dict[Any, Any], generator: random.Random) -> None:
    node, key = generator.choice(list(_places(tree)))
    kind = generator.choice(["delete", "replace", "replace", "replace", "rename", "nest"])
    if kind == "delete":
        del node[key]
    elif kind == "rename" and isinstance(node, dict):
        text = str(key)
        name = generator.choice([text + "s", text[:-1], text.upper(), 3, None, "", text + "\0", "a.b", True, "x" * 300])
        node[name] = node.pop(key)
    elif kind == "nest":
        for _ in range(generator.choice([1, 3, 5000])):
            node[key] = [node[key]]
    else:
        node[key] = copy.deepcopy(generator.choice(ODD_VALUES))


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a tree, its lists and sections included, as deep as recipes are."""
    waiting = [(node, 0)]
    while waiting:
        container, depth = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            yield container, key
            if isinstance(container[key], dict | list) and depth < 6:
                waiting.append((container[key], depth + 1))


def mutated_bytes(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies of a file's content: bytes replaced, cut out, doubled or inserted, or the end cut off."""
    generator = random.Random(seed)
    for _ in range(count):
        variant = bytearray(content)
        for _ in range(generator.choice([1, 1, 2, 8])):
            first = generator.randrange(len(variant) + 1)
            last = min(first + generator.choice([1, 1, 4, 40]), len(variant))
            kind = generator.choice(["replace", "insert", "cut", "double", "end"])
            if kind == "replace":
                variant[first:last] = generator.randbytes(last - first)
            elif kind == "insert":
                odd = (
                    b"\t",
                    b"#",
                    b":",
                    b"'",
                    b'"',
                    b"{",
                    b"]",
                    b"\0",
                    b"\xff\xfe",
                    b"\x1b",
                    b"&a ",
                    b"*a ",
                    b"!!x ",
                    b"- ",
                )
                variant[first:first] = generator.choice(odd)
            elif kind == "cut":
                del variant[first:last]
            elif kind == "double":
                variant[first:first] = variant[first:last]
            elif len(variant) > 1:
                del variant[max(first, 1) :]
        yield bytes(variant)
