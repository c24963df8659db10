"""`edgebit inspect`: what a bundle or model file holds."""

import json
from contextlib import closing
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
from edgebit.bundle.model_format import Conf, Role, Tensor
from edgebit.bundle.model_reader import ModelFile
from edgebit.bundle.prompt_program import PromptProgram
from edgebit.checkpoint.code_counts import Counts, count_codes
from edgebit.checkpoint.model_file_checkpoint import open_model_file
from edgebit.checkpoint.tokenizer import ADDED, UNUSED, CheckpointTokenizer
from edgebit.cli.progress_bar import progress_bar
from edgebit.cli.terminal import print_table, printable, printable_json
from edgebit.errors import EngineError
from edgebit.keys import check_signature, list_keys
from edgebit.runtime.library import Library
from edgebit.runtime.tokenizer import Tokenizer


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("--tensors", "all_tensors", is_flag=True, help="List every tensor instead of a summary by role.")
@click.option("--codes", is_flag=True, help="Count the weights -1, 0 and +1: reads all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path, all_tensors: bool, codes: bool, as_json: bool) -> None:
    """Show what MODEL holds: a model file, a bundle, or a bundle's folder.

    \b
    edgebit inspect chat.bundle
    edgebit inspect model.ebm --tensors --codes --json
    """
    place = locate_model(path)
    with (
        progress_bar() as progress,
        ModelFile(place.path, place.offset, place.size) as model,
        closing(open_model_file(path)) as checkpoint,
    ):
        counts = count_codes(checkpoint, progress) if codes else {}
        facts = describe(model, checkpoint.tokenizer(), all_tensors=all_tensors, counts=counts)
    facts["bundle"] = _describe_bundle(path) if looks_like_bundle(path) else None
    if as_json:
        click.echo(printable_json(facts, indent=1))
    else:
        _print(path, facts, Console())


def describe(
    model: ModelFile, tokenizer: CheckpointTokenizer | None, *, all_tensors: bool, counts: Counts
) -> dict[str, Any]:
    """All facts of a model file, as JSON's kinds of value; sizes in bytes."""
    conf, meta = model.conf, model.meta
    tokens = _token_texts(model)
    program, schema = model.content("PRMT"), model.content("SCHM")
    return {
        "name": meta.get("name"),
        "family": meta.get("family"),
        "licence": meta.get("licence"),
        "parameters": conf.parameters,
        "size": model.size,
        "bits_per_weight": round(8 * model.size / conf.parameters, 3),
        "config": _config(conf),
        "bos_token": _token(conf.bos_token, tokens) if conf.bos_token >= 0 else None,
        "stop_tokens": [_token(stop, tokens) for stop in conf.stop_tokens],
        "has_tokenizer": model.content("TOKN") is not None,
        "tokenizer": _tokenizer(tokenizer) if tokenizer else None,
        "prompt_program_version": int.from_bytes(program[:4], "little") if program is not None else None,
        "prompt_program": asdict(PromptProgram.from_bytes(program)) if program is not None else None,
        "response_schema": json.loads(schema) if schema is not None else None,
        "generation": meta.get("generation"),
        "quantisation": meta.get("quantisation"),
        "sections": [asdict(section) for section in model.sections.values()],
        "tensors": [_tensor(tensor, counts) for tensor in model.tensors]
        if all_tensors
        else _by_role(model.tensors, counts),
        "probes": [
            {"prompt_tokens": len(probe.prompt), "greedy": list(probe.greedy), "logits_crc": f"{probe.logits_crc:08x}"}
            for probe in model.probes
        ],
        "source": meta.get("source"),
        "edgebit": meta.get("edgebit"),
    }


def _config(conf: Conf) -> dict[str, Any]:
    return {
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
        "projection_norm_eps": conf.projection_norm_eps,
        "rope_attention_factor": conf.rope_attention_factor,
        "head_tied": conf.head_tied,
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


def _tokenizer(tokenizer: CheckpointTokenizer) -> dict[str, Any]:
    return {
        "kind": tokenizer.kind.name.lower(),
        "pre_tokenizer": tokenizer.pre_tokenizer.name.lower(),
        "normalizer": tokenizer.normalizer.name.lower(),
        "space_prefix": tokenizer.space_prefix.name.lower(),
        "tokens": sum(not flags & UNUSED for flags in tokenizer.flags),
        "merges": len(tokenizer.merges),
        "added_tokens": sum(bool(flags & ADDED) for flags in tokenizer.flags),
    }


def _tensor(tensor: Tensor, counts: Counts) -> dict[str, Any]:
    return {
        "tensor": tensor.name,
        "rows": tensor.rows,
        "columns": tensor.columns,
        "encoding": tensor.encoding.name.lower(),
        "scales": _scales(tensor),
        "offset": tensor.offset,
        "bytes": tensor.size + 4 * tensor.n_scales,
        **_shares([tensor], counts),
    }


def _scales(tensor: Tensor) -> str:
    """What has a scale of its own."""
    return f"group of {tensor.group}" if tensor.group else tensor.granularity.name.lower()


def _shares(tensors: list[Tensor], counts: Counts) -> dict[str, Any]:
    """The shares of -1, 0 and +1, where they were counted; None of a tensor that has none."""
    if not counts:
        return {}
    found = [counts[tensor.role, tensor.layer] for tensor in tensors if (tensor.role, tensor.layer) in counts]
    total = sum(map(sum, found))
    return {
        code: round(sum(each[place] for each in found) / total, 4) if total else None
        for place, code in enumerate(("-1", "0", "+1"))
    }


def _by_role(tensors: list[Tensor], counts: Counts) -> list[dict[str, Any]]:
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
                **_shares(same, counts),
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
    head = Table.grid(padding=(0, 2))
    for key, value in [*_bundle_lines(facts["bundle"]), *_model_lines(path, facts), *_content_lines(facts["bundle"])]:
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
        tensors.add_row(*("" if tensor[key] is None else str(tensor[key]) for key in keys))
    print_table(tensors)


def _model_lines(path: Path, facts: dict[str, Any]) -> list[tuple[str, str]]:
    config, source = facts["config"], facts["source"] or {}
    lines = [
        ("model", f"{facts['name']} ({facts['family']}), {facts['parameters']:,} parameters"),
        ("file", f"{path}, model {_size(facts['size'])}, {facts['bits_per_weight']} bits a weight"),
        ("licence", facts["licence"] or "not stated by the checkpoint"),
        *([("answers", "follow a JSON Schema: --json shows it")] if facts["response_schema"] is not None else []),
        (
            "shape",
            f"{config['n_layers']} layers, hidden {config['hidden_size']}, ffn {config['ffn_size']}, "
            f"{config['n_heads']}/{config['n_kv_heads']} heads of {config['head_dim']}, "
            f"vocabulary {config['vocab_size']}, context {config['context_max']}, "
            f"{config['activation']}, {config['activation_quantisation']} activations, "
            f"{' '.join(config['norms']) or 'no sub-norms'}, "
            f"head {'tied' if config['head_tied'] else 'of its own'}",
        ),
        ("tokenizer", _tokenizer_line(facts["tokenizer"])),
        ("begins with", _token_line([facts["bos_token"]] if facts["bos_token"] else [])),
        ("stops at", _token_line(facts["stop_tokens"])),
        ("chat", _chat_line(facts["prompt_program"], facts["prompt_program_version"])),
        ("advised", ", ".join(f"{key} {value}" for key, value in (facts["generation"] or {}).items()) or "nothing"),
        ("stored", ", ".join(f"{key} {value}" for key, value in (facts["quantisation"] or {}).items())),
        ("probes", ", ".join(f"{probe['prompt_tokens']} tokens" for probe in facts["probes"]) or "none"),
        ("made by", f"edgebit {facts['edgebit']} from {source.get('format')}"),
    ]
    files = source.get("files", ())
    return lines + [("source", f"{file['name']}, {_size(file['size'])}, sha256 {file['sha256']}") for file in files]


def _bundle_lines(bundle: dict[str, Any] | None) -> list[tuple[str, str]]:
    if bundle is None:
        return []
    signature = bundle["signature"]
    return [
        ("bundle", f"{bundle['name']}, id {bundle['id']}, for {bundle['target']['name']}"),
        ("signature", f"{signature['status']}: {signature['detail']}"),
    ]


def _content_lines(bundle: dict[str, Any] | None) -> list[tuple[str, str]]:
    files = bundle["files"] if bundle is not None else {}
    return [("holds", f"{name}, {_size(entry['size'])}") for name, entry in sorted(files.items())]


def _token_line(tokens: list[dict[str, Any]]) -> str:
    return ", ".join(f"{token['id']} {token['text'] or ''}".rstrip() for token in tokens) or "nothing"


def _tokenizer_line(tokenizer: dict[str, Any] | None) -> str:
    if tokenizer is None:
        return "none: works with token ids only"
    kind, cut = tokenizer["kind"].replace("_", " "), tokenizer["pre_tokenizer"]
    counts = f"{tokenizer['tokens']:,} tokens, {tokenizer['merges']:,} merges, {tokenizer['added_tokens']} added tokens"
    return f"{kind} BPE, {'no pre-tokenizer' if cut == 'none' else f'pre-tokenizer {cut}'}, {counts}"


def _chat_line(program: dict[str, Any] | None, version: int | None) -> str:
    if program is None:
        return "no chat template: prompts are continued as plain text"
    prefix, suffix = program["user"]
    text = f"{prefix}...{suffix}{program['generation']}"
    return f"{text!r}, prompt program version {version}"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size} bytes"
