"""Linear attention: a kernel in place of the softmax, so that cost grows with the length and not with its square.

Paper: https://arxiv.org/abs/2006.16236. All projections carry over, but a model trained with the softmax has to be
trained again. For causal models and for those that see both sides.
"""

from core.context import Context
from core.nn.attention.linear_attention import LinearAttention
from core.subject import Subject
from core.techniques.architecture.recurrent import Recurrent, warn_trained


class LinearAttentionStep(Recurrent):
    """Replace full attention with linear attention (phi = elu + 1). Decoding then keeps a state of fixed size."""

    paper = "https://arxiv.org/abs/2006.16236"

    def check(self, subject: Subject) -> None:
        """The model has full attentions of plain projections."""
        self.attentions(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every full attention; the projections stay the same, masks included."""
        warn_trained(subject, context, "linear attention")
        rows = []
        for name, attention in self.attentions(subject).items():
            subject.replace(name, LinearAttention.from_attention(attention))
            state = 4 * (attention.heads * attention.head_dim**2 + attention.kv_heads * attention.head_dim)
            rows.append({"name": name, "heads": attention.heads, "state (bytes)": state if attention.causal else 0})
        subject.details["layers"] = rows
