"""`edgebit inspect`: what a bundle or model file holds."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgebit.bundle.archive import locate_model, looks_like_bundle, open_bundle
from edgebit.bundle.model_format import Role, Tensor
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.prompt_program import PromptProgram
from edgebit.cli.terminal import printable, printable_json
from edgebit.errors import EngineError
from edgebit.keys import check_signature, list_keys
from edgebit.runtime.native import Library, Tokenizer


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("--tensors", "all_tensors", is_flag=True, help="List every tensor instead of a summary by role.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path, all_tensors: bool, as_json: bool) -> None:
    """Show what MODEL holds: a model file, a bundle, or a bundle's folder.

    \b
    edgebit inspect chat.bundle
    edgebit inspect model.ebm --tensors --json
    """
    place = locate_model(path)
    with ModelFile(place.path, place.offset, place.size) as model:
        facts = describe(model, all_tensors)
    facts["bundle"] = _describe_bundle(path) if looks_like_bundle(path) else None
    if as_json:
        click.echo(printable_json(facts, indent=1))
    else:
        _print(path, facts, Console())


def describe(model: ModelFile, all_tensors: bool) -> dict[str, Any]:
    """All facts of a model file, as JSON's kinds of value; sizes in bytes."""
    conf, meta = model.conf, model.meta
    tokens = _token_texts(model)
    program = model.content("PRMT")
    return {
        "name": meta.get("name"),
        "family": meta.get("family"),
        "licence": meta.get("licence"),
        "parameters": conf.parameters,
        "size": model.size,
        "bits_per_weight": round(8 * model.size / conf.parameters, 3),
        "config": {
            "hidden_size": conf.hidden_size,
            "ffn_size": conf.ffn_size,
            "n_layers": conf.n_layers,
            "n_heads": conf.n_heads,
            "n_kv_heads": conf.n_kv_heads,
            "head_dim": conf.head_dim,
            "vocab_size": conf.vocab_size,
            "context_max": conf.context_max,
            "rms_norm_eps": conf.rms_norm_eps,
            "activation": conf.activation.name.lower(),
            "activation_quantisation": conf.activation_quantisation.name.lower(),
            "norms": [norm.name.lower() for norm in conf.norms if norm.name],
            "head_tied": conf.head_tied,
        },
        "bos_token": _token(conf.bos_token, tokens) if conf.bos_token >= 0 else None,
        "stop_tokens": [_token(stop, tokens) for stop in conf.stop_tokens],
        "has_tokenizer": model.content("TOKN") is not None,
        "prompt_program": asdict(PromptProgram.from_bytes(program)) if program is not None else None,
        "generation": meta.get("generation"),
        "quantisation": meta.get("quantisation"),
        "sections": [asdict(section) for section in model.sections.values()],
        "tensors": [_tensor(tensor) for tensor in model.tensors] if all_tensors else _by_role(model.tensors),
        "probes": [
            {"prompt_tokens": len(probe.prompt), "greedy": list(probe.greedy), "logits_crc": f"{probe.logits_crc:08x}"}
            for probe in model.probes
        ],
        "source": meta.get("source"),
        "edgebit": meta.get("edgebit"),
    }


def _token_texts(model: ModelFile) -> Tokenizer | None:
    section = model.content("TOKN")
    if section is None:
        return None
    try:
        return Tokenizer.from_section(Library.load(), section)
    except EngineError:  # no native library on this machine: ids are shown without their texts
        return None


def _token(token: int, tokens: Tokenizer | None) -> dict[str, Any]:
    return {"id": token, "text": tokens.token_bytes(token).decode(errors="replace") if tokens else None}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "tensor": tensor.name,
        "rows": tensor.rows,
        "columns": tensor.columns,
        "encoding": tensor.encoding.name.lower(),
        "scales": _scales(tensor),
        "offset": tensor.offset,
        "bytes": tensor.size + 4 * tensor.n_scales,
    }


def _scales(tensor: Tensor) -> str:
    """What has a scale of its own."""
    return f"group of {tensor.group}" if tensor.group else tensor.scales.name.lower()


def _by_role(tensors: list[Tensor]) -> list[dict[str, Any]]:
    """One entry for all tensors of a role, which are of one shape."""
    summary = []
    for role, group in groupby(sorted(tensors, key=lambda tensor: tensor.role), key=lambda tensor: tensor.role):
        same = list(group)
        size = sum(tensor.size + 4 * tensor.n_scales for tensor in same)
        weights = sum(tensor.rows * tensor.columns for tensor in same)
        summary.append(
            {
                "tensor": Role(role).name.lower(),
                "count": len(same),
                "rows": same[0].rows,
                "columns": same[0].columns,
                "encoding": same[0].encoding.name.lower(),
                "scales": _scales(same[0]),
                "bytes": size,
                "bits_per_weight": round(8 * size / weights, 3),
            }
        )
    return summary


def _describe_bundle(path: Path) -> dict[str, Any]:
    bundle = open_bundle(path)
    signature = check_signature(bundle, list_keys(), datetime.now(UTC))
    return {
        "id": bundle.id,
        "signature": {
            "keys": [signed.id for signed in bundle.signatures],
            "status": signature.status,
            "detail": signature.detail,
        },
        **json.loads(bundle.manifest_bytes),
    }


def _print(path: Path, facts: dict[str, Any], console: Console) -> None:
    config, source = facts["config"], facts["source"] or {}
    lines = [
        ("model", f"{facts['name']} ({facts['family']}), {facts['parameters']:,} parameters"),
        ("file", f"{path}, model {_size(facts['size'])}, {facts['bits_per_weight']} bits a weight"),
        ("licence", facts["licence"] or "not stated by the checkpoint"),
        (
            "shape",
            f"{config['n_layers']} layers, hidden {config['hidden_size']}, ffn {config['ffn_size']}, "
            f"{config['n_heads']}/{config['n_kv_heads']} heads of {config['head_dim']}, "
            f"vocabulary {config['vocab_size']}, context {config['context_max']}, "
            f"{config['activation']}, {config['activation_quantisation']} activations, "
            f"{' '.join(config['norms']) or 'no sub-norms'}, "
            f"head {'tied' if config['head_tied'] else 'of its own'}",
        ),
        ("tokenizer", "inside" if facts["has_tokenizer"] else "none: works with token ids only"),
        ("begins with", _token_line([facts["bos_token"]] if facts["bos_token"] else [])),
        ("stops at", _token_line(facts["stop_tokens"])),
        ("chat", _chat_line(facts["prompt_program"])),
        ("advised", ", ".join(f"{key} {value}" for key, value in (facts["generation"] or {}).items()) or "nothing"),
        ("stored", ", ".join(f"{key} {value}" for key, value in (facts["quantisation"] or {}).items())),
        ("probes", ", ".join(f"{probe['prompt_tokens']} tokens" for probe in facts["probes"]) or "none"),
        ("made by", f"edgebit {facts['edgebit']} from {source.get('format')}"),
    ]
    for file in source.get("files", ()):
        lines.append(("source", f"{file['name']}, {_size(file['size'])}, sha256 {file['sha256']}"))
    bundle = facts["bundle"]
    if bundle:
        lines.insert(0, ("bundle", f"{bundle['name']}, id {bundle['id']}, for {bundle['target']['name']}"))
        signature = bundle["signature"]
        lines.insert(1, ("signature", f"{signature['status']}: {signature['detail']}"))
        lines += [("holds", f"{name}, {_size(entry['size'])}") for name, entry in sorted(bundle["files"].items())]
    head = Table.grid(padding=(0, 2))
    for key, value in lines:
        head.add_row(key, Text(printable(value)))  # Text: nothing in a template is taken for markup
    console.print(head)
    console.print()
    sections = Table("section", "offset", "bytes", box=None, header_style="bold")
    for section in facts["sections"]:
        sections.add_row(section["tag"], str(section["offset"]), str(section["size"]))
    console.print(sections)
    console.print()
    keys = list(facts["tensors"][0])
    tensors = Table(*(key.replace("_", " ") for key in keys), box=None, header_style="bold")
    for tensor in facts["tensors"]:
        tensors.add_row(*(str(tensor[key]) for key in keys))
    console.print(tensors)


def _token_line(tokens: list[dict[str, Any]]) -> str:
    return ", ".join(f"{token['id']} {token['text'] or ''}".rstrip() for token in tokens) or "nothing"


def _chat_line(program: dict[str, Any] | None) -> str:
    if program is None:
        return "no chat template: prompts are continued as plain text"
    prefix, suffix = program["user"]
    return repr(f"{prefix}...{suffix}{program['generation']}")


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size} bytes"
