"""A batch of requests in one payload: what is common to all, and what is each one's own."""

from collections.abc import Mapping
from typing import Any

from edgebit.daemon.contract.messages import Address, BatchItem, BatchRequest, Refusal
from edgebit.daemon.contract.topics import is_id

ITEM_OPS = ("generate", "chat", "assist")
OWN_FIELDS = ("items", "id", "id_mode")  # of the batch, which its items do not inherit
# Where a batch has the prompt in one form, an item may have it in another: the item's own form counts.
PROMPT_FIELDS = ("prompt", "messages")


def read_batch(fields: Mapping[str, Any], address: Address, max_batch: int) -> BatchRequest:
    """Each item as the request that it is with the common fields put in; one that cannot be read has its refusal.

    Raises Refusal where answers could not be told apart, or the batch is none: then nothing of it is done.
    """
    if address.series is not None:
        raise Refusal(400, "bad_field", "a batch has no id_mode")
    given = fields.get("items")
    if not isinstance(given, list) or not 1 <= len(given) <= max_batch:
        raise Refusal(400, "bad_field", f"items is a list of 1 to {max_batch} objects")
    common = {name: value for name, value in fields.items() if name not in OWN_FIELDS}
    items = tuple(_item(item, f"{address.id}.{n}", f"items[{n}]", common) for n, item in enumerate(given))
    ids = [address.id, *(item.id for item in items)]
    if not all(is_id(item_id) for item_id in ids):
        raise Refusal(400, "bad_id", "the batch's id leaves no room for its items' numbers: give it a shorter one")
    if len(set(ids)) < len(ids):
        twice = next(item_id for item_id in ids if ids.count(item_id) > 1)
        raise Refusal(400, "conflict", f"id {twice!r} stands twice in the batch")
    return BatchRequest(items=items)


def _item(given: Any, default_id: str, where: str, common: Mapping[str, Any]) -> BatchItem:
    try:
        return _read_item(given, default_id, where, common)
    except Refusal as refusal:
        return BatchItem(op="generate", id=default_id, fields={}, refusal=refusal)


def _read_item(given: Any, default_id: str, where: str, common: Mapping[str, Any]) -> BatchItem:
    if not isinstance(given, dict):
        raise Refusal(400, "bad_field", f"{where} must be an object")
    item_id = given.get("id", default_id)
    if not isinstance(item_id, str) or not is_id(item_id):
        raise Refusal(400, "bad_id", f"{where}: an id is 1 to 64 letters, digits, '_', '.', ':', '@' and '-'")
    if "id_mode" in given:
        raise Refusal(400, "bad_field", f"{where}: an item of a batch has no id_mode")
    inherited = dict(common)
    if any(name in given for name in PROMPT_FIELDS):
        for name in PROMPT_FIELDS:
            inherited.pop(name, None)
    fields = {**inherited, **given, "id": item_id}
    if isinstance(inherited.get("options"), dict) and isinstance(given.get("options"), dict):
        fields["options"] = {**inherited["options"], **given["options"]}
    op = fields.pop("op", None) or ("chat" if "messages" in fields else "generate")
    if op not in ITEM_OPS:
        raise Refusal(400, "bad_field", f"{where}.op is one of {', '.join(ITEM_OPS)}")
    return BatchItem(op=op, id=item_id, fields=fields)
