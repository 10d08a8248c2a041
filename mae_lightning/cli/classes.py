"""Classes named in configs: finding them, their arguments, and whether a value suits one of those."""

import inspect
import types
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from mae_lightning.cli.imports import ImportPolicy
from mae_lightning.commands.spelling import nearest

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
PLAIN = (bool, int, float, str, bytes, type(None), list, tuple, dict, set)


def find_class(path: str, base: type, policy: ImportPolicy) -> type:
    """The class that a config names.

    Args:
        path: The dotted path of a class, or the name of one that is known already.
        base: What it must be a subclass of.
        policy: What may be imported.

    Raises:
        ValueError: There is none, it may not be imported, or it is of another kind; says what is near.
    """
    if "." not in path:
        return _find_known(path, base)
    if not policy.permits(path):
        package = path.split(".")[0]
        raise ValueError(f"configs may not name {path}; if you trust {package}, add --allow-import {package}")
    module_name, _, name = path.rpartition(".")
    module = _import(module_name)
    found = getattr(module, name, None)
    if found is None:
        names = [name for name, item in vars(module).items() if inspect.isclass(item)]
        raise ValueError(f"{module_name} has no {name!r}{nearest(name, names)}")
    if not inspect.isclass(found) or not issubclass(found, base):
        raise ValueError(f"{path} is not a {base.__name__}")
    return found


def _find_known(name: str, base: type) -> type:
    known: dict[str, type] = {kind.__name__: kind for kind in _subclasses(base)}
    if name not in known:
        hint = nearest(name, known, "give the dotted path of a class")
        raise ValueError(f"there is no {base.__name__} {name!r}{hint}")
    return known[name]


def _subclasses(base: type) -> Iterator[type]:
    yield base
    children: list[type] = base.__subclasses__()
    for child in children:
        yield from _subclasses(child)


def _import(name: str) -> types.ModuleType:
    """A module by its dotted name; says which part of the name is wrong."""
    parent: types.ModuleType | None = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        try:
            parent = import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise ValueError(f"{path} cannot be imported: {error}") from error
            siblings = [module.name for module in iter_modules(getattr(parent, "__path__", []))]
            raise ValueError(f"there is no module {path!r}{nearest(parts[end - 1], siblings)}") from error
    assert parent is not None
    return parent


def argument_types(kind: type) -> dict[str, Any]:
    """The arguments that a class takes, those it hands on to its bases included, with their annotations."""
    names: list[str] = ArgumentParser(exit_on_error=False).add_class_arguments(kind, fail_untyped=False)
    hints: dict[str, Any] = {}
    for base in reversed(inspect.getmro(kind)):
        try:
            hints |= get_type_hints(base.__init__)  # type: ignore[misc]
        except NameError:  # an annotation that exists for type checkers only
            continue
    return {name: hints.get(name, Any) for name in names}


def required_arguments(kind: type) -> list[str]:
    """The arguments that have no default."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(kind).parameters
    return [name for name, item in parameters.items() if item.default is item.empty and item.kind not in variadic]


def null_by_default(kind: type) -> list[str]:
    """The arguments whose default is null, whatever their annotations say."""
    return [name for name, item in inspect.signature(kind).parameters.items() if item.default is None]


def suits(annotation: Any, value: Any) -> bool:
    """Whether a value fits a type, by the judgement of jsonargparse; null, which it lets pass, by the type alone."""
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=annotation)
    except ValueError:  # a type that it does not know takes anything
        return True
    if value is None:
        return _allows_null(annotation)
    try:
        parser.parse_object({"value": deepcopy(value)})  # it changes what it is given
    except ArgumentError:
        return False
    return True


def _allows_null(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType, Literal, Annotated):
        return any(part is None or _allows_null(part) for part in get_args(annotation))
    return annotation in (Any, object, type(None)) or isinstance(annotation, TypeVar)


def classes_in(annotation: Any) -> list[type]:
    """The classes in an annotation whose instances a config describes by class path or by their arguments."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        return [kind for part in get_args(annotation) for kind in classes_in(part)]
    is_class = inspect.isclass(annotation) and not issubclass(annotation, PLAIN)
    return [annotation] if is_class else []


def wording(annotation: Any) -> str:
    """A type in words: what would have been right."""
    return " or ".join(dict.fromkeys(_alternatives(annotation)))


def _alternatives(annotation: Any) -> Iterator[str]:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for part in parts:
            yield from _alternatives(part)
    elif origin is Literal:
        yield from (repr(part) for part in parts)
    elif origin is tuple and Ellipsis not in parts:
        yield f"a list of {len(parts)} values"
    elif inspect.isclass(origin):
        yield "a mapping" if issubclass(origin, Mapping) else "a list"
    elif annotation in WORDS:
        yield WORDS[annotation]
    else:
        yield annotation.__name__ if inspect.isclass(annotation) else "another kind of value"
