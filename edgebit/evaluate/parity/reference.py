"""A checkpoint run by Hugging Face transformers: the reference that the engine is held to.

Weights stay in the checkpoint's own type in memory; each layer is widened while it runs and computes in float32, so the
reference never rounds to bf16.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebit.engines.causal_lm import import_transformers, load_causal_lm
from edgebit.errors import CheckpointError
from edgebit.evaluate.parity.agreement import row_errors

_HEAD_ROWS = 16384  # of the head that are float32 at once
_NOISY_RUNS = 8
_NOISE = 1e-6  # of each value: several times what float32 rounds off, so that what may fall either way does


@dataclass(frozen=True, slots=True)
class Captured:
    """What went into a module of a layer, and what came out; float32 [tokens, features]."""

    given: NDArray[np.float32]
    made: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerRun:
    """One layer as it ran."""

    layer: int
    stream: Captured  # the residual stream before and after it
    modules: dict[str, Captured]  # by their name within the layer, such as self_attn.q_proj
    noise: NDArray[np.float32]  # [tokens]: how far the output moved when the input's last bits did (row_errors)


class Reference:
    """A causal language model as transformers computes it, on the CPU."""

    def __init__(self, folder: Path) -> None:
        """Load the checkpoint in `folder`.

        Raises EdgebitError where transformers is not installed, CheckpointError where it cannot load it, saying why.
        """
        self._torch, transformers = import_transformers()
        self.name = f"transformers {transformers.__version__}, torch {self._torch.__version__}"
        self._model = load_causal_lm(self._torch, transformers, folder)
        base = self._model.base_model
        self._embed, self._head = self._model.get_input_embeddings(), self._model.get_output_embeddings()
        if not (hasattr(base, "layers") and hasattr(base, "norm") and self._head is not None):
            raise CheckpointError(f"{folder}: {type(self._model).__name__} is not built of layers, a norm and a head")
        self._base, self._layers, self._norm = base, base.layers, base.norm
        self.n_layers, self.hidden_size = len(base.layers), int(self._embed.weight.shape[1])
        self.vocab_size = int(self._head.weight.shape[0])
        for module in (*self._layers, self._norm):
            self._widen_while_it_runs(module)
        self._embed.register_forward_hook(lambda module, given, made: made.float())

    def run(self, ids: list[int], watch: Callable[[LayerRun], None] | None = None) -> NDArray[np.float32]:
        """What comes after the final norm, [tokens, hidden]; `watch` is called after each layer."""
        hooks = [] if watch is None else [hook for i in range(self.n_layers) for hook in self._watch_layer(i, watch)]
        tokens = self._torch.tensor([ids])
        try:
            with self._torch.inference_mode(), self._torch.compiler.set_stance("force_eager"):
                return self._rows(self._base(tokens, use_cache=False).last_hidden_state)
        finally:
            for hook in hooks:
                hook.remove()

    def _watch_layer(self, number: int, watch: Callable[[LayerRun], None]) -> list[Any]:
        """The hooks that tell `watch` of one layer; they hold no more than that layer's values."""
        layer, modules = self._layers[number], dict[str, Captured]()
        is_watched = [True]  # False while the layer is run again

        def keep(name: str) -> Callable[[Any, tuple[Any, ...], Any], None]:
            def hook(module: Any, given: tuple[Any, ...], made: Any) -> None:
                if is_watched[0]:
                    modules[name] = Captured(self._rows(given[0]), self._rows(made))

            return hook

        def end(module: Any, given: tuple[Any, ...], keywords: dict[str, Any], made: Any) -> None:
            is_watched[0] = False
            stream = Captured(self._rows(given[0]), self._rows(_first(made)))
            noise = self._noise(module, given, keywords, stream.made)
            watch(LayerRun(number, stream, dict(modules), noise))
            modules.clear()
            is_watched[0] = True

        return [
            *(
                module.register_forward_hook(keep(name))
                for name, module in layer.named_modules()
                if name.endswith(("_proj", "norm"))
            ),
            layer.register_forward_hook(end, with_kwargs=True, prepend=True),  # before its weights are narrow again
        ]

    def _noise(
        self, layer: Any, given: tuple[Any, ...], keywords: dict[str, Any], made: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """See LayerRun.noise: over some runs whose inputs differ by a random share of _NOISE."""
        hidden, *rest = given
        random = self._torch.Generator().manual_seed(0)
        shares = self._torch.randn((_NOISY_RUNS, *hidden.shape[1:]), generator=random) * _NOISE
        noisy = _first(layer.forward(hidden * (1 + shares), *rest, **keywords)).float().numpy()
        noise: NDArray[np.float32] = np.max([row_errors(run, made) for run in noisy], axis=0)
        return noise

    def logits(self, normed: NDArray[np.float32]) -> NDArray[np.float32]:
        """[tokens, vocabulary] of what came after the final norm; the head is widened a part at a time."""
        given, head = self._torch.from_numpy(normed), self._head
        parts = [given @ rows.detach().float().T for rows in head.weight.split(_HEAD_ROWS)]
        logits = self._torch.cat(parts, dim=1)
        if head.bias is not None:
            logits = logits + head.bias.detach().float()
        result: NDArray[np.float32] = logits.numpy()
        return result

    def greedy(self, prompt: list[int], n: int, step: Callable[[int], None]) -> list[int]:
        """The `n` tokens that it takes after `prompt`; `step` is called with how many there are."""
        ids = list(prompt)
        for done in range(n):
            step(done)
            ids.append(int(self.logits(self.run(ids)[-1:]).argmax()))
        return ids[len(prompt) :]

    def _rows(self, values: Any) -> NDArray[np.float32]:
        """[1, tokens, ...] as [tokens, features], float32, and ours."""
        rows: NDArray[np.float32] = values.detach().float().reshape(values.shape[1], -1).numpy().copy()
        return rows

    def _widen_while_it_runs(self, module: Any) -> None:
        stored: list[tuple[Any, Any]] = []

        def widen(module: Any, given: Any) -> None:
            for values in (*module.parameters(), *module.buffers()):
                if values.is_floating_point() and values.dtype != self._torch.float32:
                    stored.append((values, values.data))
                    values.data = values.data.float()

        def restore(module: Any, given: Any, made: Any) -> None:
            for values, data in stored:
                values.data = data
            stored.clear()

        module.register_forward_pre_hook(widen)
        module.register_forward_hook(restore, always_call=True)


def _first(made: Any) -> Any:
    """A layer's hidden states: some versions give a tuple that begins with them."""
    return made[0] if isinstance(made, tuple) else made
