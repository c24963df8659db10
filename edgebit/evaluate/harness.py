"""The model `edgebit` for lm-evaluation-harness (lm-eval), which looks for no models outside its own package.

    python -m edgebit.evaluate.harness --model edgebit --model_args bundle=chat.bundle --tasks arc_easy

is lm_eval's own command line with that model registered; register() does it for programs that call lm_eval themselves.
"""

import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from edgebit.errors import EdgebitError
from edgebit.evaluate.model_opening import open_sound_model
from edgebit.evaluate.text_model import TextModel
from edgebit.runtime.cores import default_threads
from edgebit.runtime.engine import KV_TYPES

NAME = "edgebit"
_NUMBERS = ("threads", "max_length", "seed")


def open_text_model(
    bundle: str,
    *,
    threads: int | None = None,
    kv: str = KV_TYPES[0],
    max_length: int | None = None,
    seed: int = 0,
) -> TextModel:
    """The bundle or model file at `bundle`. Raises EdgebitError where it cannot be used so."""
    if kv not in KV_TYPES:
        raise EdgebitError(f"kv={kv}: it must be one of {', '.join(KV_TYPES)}")
    model = open_sound_model(Path(bundle))
    return TextModel(model, max_length=max_length, threads=threads or default_threads(), kv=kv, seed=seed)


def _checked(arguments: dict[str, Any]) -> dict[str, Any]:
    """What open_text_model() takes. Raises EdgebitError where one is missing, unknown, or no number."""
    known = inspect.signature(open_text_model).parameters
    for name, value in arguments.items():
        if name not in known:
            raise EdgebitError(f"model_args: there is no {name}. Give some of {', '.join(known)}")
        if name in _NUMBERS and value is not None and not isinstance(value, int):
            raise EdgebitError(f"model_args: {name} is {value!r}, and must be a whole number")
    if arguments["bundle"] is None:
        raise EdgebitError("model_args: there is no bundle. Give one: --model_args bundle=chat.bundle")
    return arguments


@cache
def register() -> type[Any]:
    """Make `edgebit` known to lm_eval, and give the class, whose arguments are those of open_text_model().

    Raises EdgebitError where lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
        from lm_eval.api.registry import register_model
        from tqdm import tqdm
    except ImportError as missing:
        raise EdgebitError(f"{missing.name} is not installed. Install it: pip install 'edgebit[lm-eval]'") from missing

    @register_model(NAME)
    class EdgebitLM(LM):  # type: ignore[misc, unused-ignore]  # untyped
        """A bundle, as lm_eval drives it. batch_size and device are lm_eval's own and mean nothing here."""

        def __init__(
            self,
            bundle: str | None = None,
            batch_size: Any = None,
            max_batch_size: Any = None,
            device: Any = None,
            **options: Any,
        ) -> None:
            super().__init__()
            self._text_model = open_text_model(**_checked({"bundle": bundle} | options))

        @property
        def tokenizer_name(self) -> str:
            """What lm_eval keeps prepared requests by."""
            return f"{NAME}-{self._text_model.fingerprint}"

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            """Of each (context, continuation): its log-likelihood, and whether it is greedy."""
            found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
            texts = [request.args for request in requests]
            scored = self._text_model.likelihoods(texts)
            for place, one in tqdm(scored, total=len(texts), desc="loglikelihood", disable=disable_tqdm):
                found[place] = (one.log_prob, one.is_greedy)
                self.cache_hook.add_partial("loglikelihood", texts[place], found[place])
            return found

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            """Of each whole text."""
            return self._one_by_one("loglikelihood_rolling", self._text_model.rolling, requests, disable_tqdm)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            """An answer to each context."""
            return self._one_by_one("generate_until", self._text_model.generate, requests, disable_tqdm)

        def _one_by_one(self, kind: str, answer: Callable[..., Any], requests: list[Any], is_quiet: bool) -> list[Any]:
            found = []
            for request in tqdm(requests, desc=kind, disable=is_quiet):
                found.append(answer(*request.args))
                self.cache_hook.add_partial(kind, request.args, found[-1])
            return found

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            """A conversation as the text of a prompt."""
            return self._text_model.chat(chat_history, answer_next=add_generation_prompt)

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            """What lm_eval tells templates apart by; the model has one at most."""
            return self._text_model.template if chat_template else None

    return EdgebitLM


def main() -> None:
    """lm_eval's command line, with the model `edgebit` among its own."""
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except EdgebitError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
