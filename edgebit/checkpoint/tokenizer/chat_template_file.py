"""Where a checkpoint keeps its chat template."""

from pathlib import Path

from edgebit.checkpoint.tokenizer.json_object import read_json_object
from edgebit.errors import TokenizerError


def read_chat_template(folder: Path) -> str | None:
    """The chat template, of chat_template.jinja, chat_template.json or tokenizer_config.json; None: there is none.

    Raises TokenizerError where there are several and none is called "default".
    """
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        try:
            return jinja.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{jinja}: cannot be read: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = (read_json_object(folder / name) or {}).get("chat_template")
        if isinstance(template, list):
            named = {entry["name"]: entry["template"] for entry in template}
            if "default" not in named:
                raise TokenizerError(f"{folder / name}: chat templates {', '.join(named)}, and none is 'default'")
            template = named["default"]
        if template:
            return str(template)
    return None
