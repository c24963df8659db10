"""A model's chat template in plain Jinja, for template engines that know little of it.

onnxruntime-genai renders with one that lacks filters which published templates use (BitNet's own has `capitalize`).
"""

import json

from edgebit.bundle.prompt_program import ROLES, PromptProgram


def plain_template(program: PromptProgram, begin: str) -> str | None:
    """The Jinja text that renders what `program` does; `begin`: the begin-of-text token's text, "" where there is none.

    None where the program puts a system text into a user's turn or takes a thought out, which plain Jinja cannot say.
    It does not refuse orders of roles that the program refuses, apart from a system message that has no place.
    """
    if program.system_place != "front" or program.thought_end:
        return None
    first = begin if program.add_bos else ""
    return "".join(
        (
            _write(first),
            _default_system(program),
            "{% for message in messages %}",
            *(_turn(program, role, "if" if place == 0 else "elif") for place, role in enumerate(ROLES)),
            "{% endif %}{% endfor %}{% if add_generation_prompt %}",
            _write(program.generation),
            "{% endif %}",
        )
    )


def _default_system(program: PromptProgram) -> str:
    if not program.default_system:
        return ""
    return "{% if messages[0]['role'] != 'system' %}" + _write(program.default_system) + "{% endif %}"


def _turn(program: PromptProgram, role: str, branch: str) -> str:
    test = f"{{% {branch} message['role'] == '{role}' %}}"
    if role == "system" and not program.allow_system:
        return test + "{{ raise_exception('this chat template has no place for a system message') }}"
    prefix, suffix = {"system": program.system, "user": program.user, "assistant": program.assistant}[role]
    content = "message['content'] | trim" if role in program.strip else "message['content']"
    return test + _write(prefix) + f"{{{{ {content} }}}}" + _write(suffix)


def _write(text: str) -> str:
    """As an expression: a template's own text would lose line feeds to some engines' trimming."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
