"""RetNet: retention in place of attention. Trained in parallel, decoded with a state of fixed size.

Paper: https://arxiv.org/abs/2307.08621. Queries, keys, values and output carry over, values and output only where
value_factor leaves their shapes; the gate is new. Learned positions are taken out, for retention turns queries and
keys. The paper's models have value_factor 2 and a feed-forward network of twice the width (ffn_ratio: 2), which is as
many parameters as a Transformer has.
"""

from typing import Literal

from pydantic import Field

from core.algorithms.module_swapping import drop_learned_positions, forget_training
from core.context import Context
from core.errors import SpecError
from core.nn.attention.retention import Retention, log_decays
from core.subject import Subject
from core.techniques.architecture.recurrent import Recurrent, warn_trained
from core.techniques.parts import OTHER_MIXING


class Retnet(Recurrent):
    """Replace full attention with multi-scale retention."""

    paper = "https://arxiv.org/abs/2307.08621"
    leaves = OTHER_MIXING

    value_factor: Literal[1, 2] = Field(
        1,
        description="width of values relative to keys: 1 keeps the weights; 2, as in the paper, needs new ones",
    )

    def label(self) -> str:
        """The width of values, where it is not that of keys."""
        return "" if self.value_factor == 1 else f"values × {self.value_factor}"

    def check(self, subject: Subject) -> None:
        """The model is causal, every layer has heads that can be turned, and no mask is on what is drawn anew."""
        attentions = self.causal_attentions(subject)
        idle = next((name for name, attention in attentions.items() if not attention.heads), None)
        if idle is not None:
            raise SpecError.of("model", idle, "has no heads left", "Put retnet before the step that cut them out.")
        odd = next((a.head_dim for a in attentions.values() if a.head_dim % 2), None)
        if odd is not None:
            message = f"makes heads of width {odd}, and rotary positions need an even width"
            raise SpecError.of("model.heads", next(iter(attentions.values())).heads, message, "Choose another number.")
        masked = [name for name in attentions if self._masked(subject, name)] if self.value_factor != 1 else []
        if masked:
            message = f"needs new value and output weights, but those of {masked[0]} are pruned"
            raise SpecError.of("value_factor", self.value_factor, message, "Set it to 1, or prune after retnet.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every full attention."""
        self.check(subject)
        if self.value_factor == 1:
            warn_trained(subject, context, "retention")
        else:
            forget_training(subject, context, "values and outputs")
        generator = context.generator("retention")
        rows = []
        for name, attention in self.causal_attentions(subject).items():
            retention = Retention.from_attention(attention, value_factor=self.value_factor)
            retention.initialize_(generator)
            subject.replace(name, retention)
            rows.append(_row(name, retention))
        drop_learned_positions(subject)
        subject.trained = False
        subject.details["layers"] = rows

    def _masked(self, subject: Subject, name: str) -> bool:
        return any(subject.mask(f"{name}.{part}.weight") is not None for part in ("v", "o"))


def _row(name: str, retention: Retention) -> dict[str, str | int | float]:
    heads = retention.heads
    return {
        "name": name,
        "heads": heads,
        "fastest decay": float(log_decays(heads)[0].exp()),
        "slowest decay": float(log_decays(heads)[-1].exp()),
        "state (bytes)": 4 * heads * retention.head_dim * retention.value_dim,
    }
