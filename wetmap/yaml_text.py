"""YAML that people wrote, read without traps: plain data alone, no key twice, nothing that grows without end.

It is PyYAML's safe loader, which makes no objects of Python. What it lets pass and a person did not mean is refused
here: a key that stands twice (the last would win in silence), aliases that write a short text out into gigabytes ("a
billion laughs") or lead back to themselves, brackets in brackets without end, whole numbers of thousands of digits,
texts that cannot be written down.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

#: Most levels of lists and mappings in each other; a recipe has six.
MOST_LEVELS = 50
#: Most values of a text once every alias is written out; the longest recipe here has some hundreds.
MOST_VALUES = 200_000
#: Longest whole number, characters: far beyond all that is counted here.
LONGEST_INT = 40
#: Characters that YAML lets in as escapes alone: controls but for tab and line ends, and halves of a pair of UTF-16.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def read_yaml(text: str) -> Any:
    """The plain data of a YAML text: None where it is empty.

    Raises:
        yaml.YAMLError: It is not YAML, holds other things than plain data, or one of the traps; the message names the
            line.
    """
    loader = _Careful(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Careful(yaml.SafeLoader):
    """PyYAML's safe loader, and the limits of this module."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._values: dict[int, int] = {}  # by identity of a node: its values with all aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One value of the text, with all that is in it."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self._level += 1
        if self._level > MOST_LEVELS:
            raise _trap(f"it is nested more than {MOST_LEVELS} levels deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._values:
                raise _trap(f"*{event.anchor} refers to itself", event.start_mark)
        elif node is not None:
            self._values[id(node)] = self._count(node)
        return node

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """A text that can be printed, saved, and handed to the system."""
        text = self.construct_yaml_str(node)
        if UNPRINTABLE.search(text):
            raise _trap("a text in it has characters that nothing can show", node.start_mark)
        return text

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """A whole number that can be printed."""
        if len(node.value) > LONGEST_INT:
            raise _trap(f"a whole number of {len(node.value)} characters is too long", node.start_mark)
        return self.construct_yaml_int(node)

    def construct_day(self, node: yaml.ScalarNode) -> Any:
        """A date or a time; one that no calendar has stays a text, so that what reads it can say where it stands."""
        try:
            return self.construct_yaml_timestamp(node)
        except (ValueError, OverflowError):
            return node.value

    def _count(self, node: yaml.Node) -> int:
        """Values in a node, itself included, each as often as it is written out."""
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _refuse_twins(node)
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        total = 1 + sum(self._values[id(child)] for child in children)
        if total > MOST_VALUES:
            raise _trap(f"it holds more than {MOST_VALUES:,} values when its aliases are written out", node.start_mark)
        return total


_Careful.add_constructor("tag:yaml.org,2002:str", _Careful.construct_text)
_Careful.add_constructor("tag:yaml.org,2002:int", _Careful.construct_whole_number)
_Careful.add_constructor("tag:yaml.org,2002:timestamp", _Careful.construct_day)


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Each key once. What is merged (``<<``) may be said otherwise beside it."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (key.tag, key.value) in seen:
            raise _trap(f"it says {key.value[:60]} twice", key.start_mark)
        seen.add((key.tag, key.value))


def _trap(what: str, mark: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(None, None, what, mark)
