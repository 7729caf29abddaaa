"""The right-hand sides of a config file: literals and a little arithmetic, evaluated from their syntax tree.

Nothing is executed. What is understood: literals, lists, tuples, dicts, `dict(...)`, names assigned above, `*` and
`**` unpacking, arithmetic on numbers, `+` on texts, lists and tuples, constant subscripts. All else is refused with
its line and a hint.
"""

import ast
import contextlib
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from iwin.config.tree import Key, Node
from iwin.errors import ConfigError, did_you_mean

_MAX_NESTING = 100
_MAX_EXPONENT = 256

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}

_ARE_DATA = "config files are data: write the value itself"
_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Import: ("an import", _ARE_DATA),
    ast.ImportFrom: ("an import", _ARE_DATA),
    ast.Call: ("a call", "only dict(...) may be called"),
    ast.Attribute: ("an attribute", _ARE_DATA),
    ast.JoinedStr: ("an f-string", "write the whole text, or join texts with +"),
    ast.ListComp: ("a comprehension", "write the list out"),
    ast.DictComp: ("a comprehension", "write the dict out"),
    ast.Set: ("a set", "use a list; mmcv's {{ ... }} variables are not supported either"),
    ast.Assign: ("an assignment to anything but a name", "assign the whole value"),
    ast.AugAssign: ("an update of a name", "assign the whole value"),
    ast.Delete: ("del", "leave the name out, or begin it with two underscores to keep it private"),
}
_TEMPLATE = re.compile(r"\{\{\s*(file|_base_)")


class Expressions:
    """Evaluates the expressions of one file.

    Args:
        label: the file, as messages name it.
        names: the values assigned so far.
    """

    def __init__(self, label: str, names: dict[str, Node]) -> None:
        self.label = label
        self.names = names
        self.base_names: frozenset[Key] = frozenset()
        """Names that the file's bases set: not visible, but worth a hint."""
        self._nesting = 0

    def evaluate(self, expr: ast.expr) -> Node:
        """The value of an expression.

        Raises:
            ConfigError: the expression is more than data.
        """
        self._nesting += 1
        if self._nesting > _MAX_NESTING:
            raise self.error(expr, "the expression is nested too deeply")
        node = self._evaluate_kind(expr)
        self._nesting -= 1
        return node

    def where(self, node: ast.expr | ast.stmt) -> str:
        """`file:line` of a piece of syntax."""
        return f"{self.label}:{node.lineno}"

    def error(self, node: ast.expr | ast.stmt, what: str) -> ConfigError:
        """The error to raise about a piece of syntax."""
        return ConfigError(f"{self.where(node)}: {what}")

    def refusal(self, node: ast.expr | ast.stmt) -> ConfigError:
        """The error to raise about a piece of syntax that is more than data."""
        what, hint = _REFUSED.get(type(node), (f"Python's {type(node).__name__}", _ARE_DATA))
        return self.error(node, f"{what} is not understood here; {hint}")

    def _evaluate_kind(self, expr: ast.expr) -> Node:
        match expr:
            case ast.Constant(value=value):
                return self._constant(expr, value)
            case ast.Name(id=name):
                return self._name(expr, name)
            case ast.List(elts=elements):
                return Node(list(self._elements(elements)), self.where(expr))
            case ast.Tuple(elts=elements):
                return Node(tuple(self._elements(elements)), self.where(expr))
            case ast.Dict(keys=keys, values=values):
                return self._dict_literal(expr, keys, values)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
                return self._dict_call(expr, keywords)
            case ast.Call(func=ast.Name(id="dict")):
                raise self.error(expr, "dict(...) takes no positional argument; write dict(**it, key=value)")
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                number = self.evaluate(operand).value
                if _is_number(number):
                    return Node(-number if isinstance(sign, ast.USub) else number, self.where(expr))
            case ast.BinOp(left=left, op=op, right=right):
                return self._arithmetic(expr, self.evaluate(left).value, op, self.evaluate(right).value)
            case ast.Subscript(value=container, slice=index):
                return self._subscript(expr, self.evaluate(container).value, self.evaluate(index).value)
        raise self.refusal(expr)

    def _constant(self, expr: ast.Constant, value: Any) -> Node:
        if not isinstance(value, str | int | float | None):
            raise self.error(expr, f"a {type(value).__name__} is no value of a config")
        if isinstance(value, str) and _TEMPLATE.search(value):
            raise self.error(expr, "mmcv's {{ ... }} variables are not supported; write the text itself")
        return Node(value, self.where(expr))

    def _name(self, expr: ast.Name, name: str) -> Node:
        if name in self.names:
            # The whole is said to come from the line that uses it; what is inside keeps the lines it was written on.
            return Node(self.names[name].value, self.where(expr))
        hint = did_you_mean(name, self.names)
        if name in self.base_names:
            hint = "; the names of a _base_ file are not visible in this one (mmcv's rule): repeat the value"
        raise self.error(expr, f"'{name}' is not assigned above{hint}")

    def _elements(self, elements: list[ast.expr]) -> Iterator[Node]:
        for element in elements:
            if not isinstance(element, ast.Starred):
                yield self.evaluate(element)
                continue
            unpacked = self.evaluate(element.value).value
            if not isinstance(unpacked, list | tuple):
                raise self.error(element, "* unpacks only lists and tuples")
            yield from unpacked

    def _dict_literal(self, expr: ast.Dict, keys: list[ast.expr | None], values: list[ast.expr]) -> Node:
        items: dict[Key, Node] = {}
        for key_expr, value_expr in zip(keys, values, strict=True):
            if key_expr is None:
                items |= self._unpacked(value_expr)
                continue
            key = self.evaluate(key_expr).value
            if not isinstance(key, str | int):
                raise self.error(key_expr, "a key must be text or a whole number")
            items[key] = self.evaluate(value_expr)
        return Node(items, self.where(expr))

    def _dict_call(self, expr: ast.Call, keywords: list[ast.keyword]) -> Node:
        items: dict[Key, Node] = {}
        for keyword in keywords:
            new: dict[Key, Node]
            new = {keyword.arg: self.evaluate(keyword.value)} if keyword.arg else self._unpacked(keyword.value)
            if twice := items.keys() & new.keys():
                raise self.error(expr, f"dict(...) has '{twice.pop()}' twice")
            items |= new
        return Node(items, self.where(expr))

    def _unpacked(self, expr: ast.expr) -> dict[Key, Node]:
        unpacked = self.evaluate(expr).value
        if not isinstance(unpacked, dict):
            raise self.error(expr, "** unpacks only dicts")
        return unpacked

    def _arithmetic(self, expr: ast.expr, a: Any, op: ast.operator, b: Any) -> Node:
        operation = _ARITHMETIC.get(type(op))
        joins = isinstance(op, ast.Add) and type(a) is type(b) and isinstance(a, str | list | tuple)
        if operation is None or not (joins or (_is_number(a) and _is_number(b))):
            raise self.error(expr, "arithmetic works on numbers, and + on texts, lists and tuples")
        # Numbers stay below tree.MAX_BITS one by one; only a power could be huge before it is looked at.
        if isinstance(op, ast.Pow) and abs(b) > _MAX_EXPONENT:
            raise self.error(expr, f"an exponent above {_MAX_EXPONENT} is not computed")
        try:
            result = operation(a, b)
        except ArithmeticError as error:
            raise self.error(expr, f"the arithmetic fails: {error}") from error
        if isinstance(result, complex):
            raise self.error(expr, "the result is a complex number")
        return Node(result, self.where(expr))

    def _subscript(self, expr: ast.expr, container: Any, key: Any) -> Node:
        if isinstance(container, dict | list | tuple):
            with contextlib.suppress(KeyError, IndexError, TypeError):
                found: Node = container[key]
                return Node(found.value, self.where(expr))
        raise self.error(expr, f"there is no [{key!r}] in this value")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
