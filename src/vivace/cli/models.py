"""`vivace models`: list, pull, show and remove models."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict

from vivace.files import catalogue
from vivace.files.catalogue import ModelCard
from vivace.types.kv import DEFAULT_KV_FORMAT, KV_FORMAT_NAMES

NAME = "models"
HELP = "list, pull, show and remove models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="models that can be asked for by name")
    pull = actions.add_parser("pull", help="get a model, unless it is there already")
    show = actions.add_parser("show", help="what is known of a model")
    remove = actions.add_parser("rm", help="delete a pulled model")
    pull.add_argument("name", help="a catalogue name, or a hub id owner/name[:file.gguf]")
    show.add_argument("name", help="a catalogue name, or the path of a .gguf file or a folder")
    show.add_argument("--precision", action="store_true", help="what its ops read and write, by the table of casts")
    show.add_argument("--policy", default="native-12", metavar="P", help="a row of that table (default: %(default)s)")
    show.add_argument("--kv-format", choices=KV_FORMAT_NAMES, default=DEFAULT_KV_FORMAT, help="of keys and values")
    remove.add_argument("name", help="a catalogue name")
    for action in (listing, pull, show, remove):
        action.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Carry the action out.

    Raises:
        VivaceError: there is no such model, or it cannot be had; see `vivace.files.catalogue`.
    """
    return _ACTIONS[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    cards = catalogue.list_models()
    if arguments.json:
        return _print_json([_card_fields(card) for card in cards])
    rows = [("NAME", "SIZE", "LICENCE", "PULLED", "WHAT IT IS")]
    for card in cards:
        name = f"{card.name} (default)" if card.default else card.name
        rows.append((name, _size(card), card.licence or "", "yes" if card.path else "no", card.summary))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    path = catalogue.pull(arguments.name)
    if arguments.json:
        return _print_json({"name": arguments.name, "path": str(path)})
    print(path)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    if arguments.precision:
        return _show_precision(arguments)
    card = catalogue.show(arguments.name)
    if arguments.json:
        return _print_json(_card_fields(card))
    lines = {
        "name": card.name,
        "what": card.summary,
        "path": str(card.path) if card.path else f"not pulled (vivace models pull {card.name})",
        "size": _size(card),
        "sha256": card.sha256,
        "licence": card.licence or "not given",
        "source": card.source,
        "chat template": card.chat_template or "none",
    }
    for title, text in lines.items():
        if text is not None:
            print(f"{title:14}{text}")
    return 0


def _show_precision(arguments: argparse.Namespace) -> int:
    from vivace.cli.models_precision import precision_rows, print_precision
    from vivace.files.open import open_model
    from vivace.graph.casts import find_policy

    policy = find_policy(arguments.policy)
    model = open_model(catalogue.resolve(arguments.name))
    try:
        if arguments.json:
            return _print_json({"kv_format": arguments.kv_format, "ops": precision_rows(model, policy)})
        print_precision(model, policy, arguments.kv_format)
        return 0
    finally:
        model.close()


def _remove(arguments: argparse.Namespace) -> int:
    freed = catalogue.remove(arguments.name)
    if arguments.json:
        return _print_json({"name": arguments.name, "freed_bytes": freed})
    print(f"{freed / 1e6:.0f} MB freed" if freed else f"{arguments.name} was not pulled")
    return 0


def _card_fields(card: ModelCard) -> dict[str, object]:
    return {**asdict(card), "path": str(card.path) if card.path else None}


def _size(card: ModelCard) -> str:
    return f"{card.num_bytes / 1e6:.0f} MB"


def _print_json(value: object) -> int:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print()
    return 0


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "pull": _pull,
    "show": _show,
    "rm": _remove,
}
