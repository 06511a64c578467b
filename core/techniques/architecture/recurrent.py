"""What the steps share that put a recurrent mixing in the place of attention."""

from torch import nn

from core.algorithms.module_swapping import full_attentions
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.attention.full import FullAttention
from core.subject import Subject
from core.technique import INTEGER_CODES, LOW_RANK, REDUCED_TOKENS, ROTATED_STREAM, OneShot
from core.techniques.parts import NEEDS_FULL_ATTENTION, OTHER_ATTENTION

CAUSAL_REMEDY = "Choose builtin:gpt, or a step for bidirectional models, such as linear_attention."


class Recurrent(OneShot):
    """Base: every full attention is swapped for something that decodes with a state of fixed size."""

    family = Family.ARCHITECTURE
    leaves = OTHER_ATTENTION
    refuses = {
        **NEEDS_FULL_ATTENTION,
        INTEGER_CODES: "Put this step before the one that quantizes.",
        LOW_RANK: "Put this step before the one that factors.",
        ROTATED_STREAM: "Remove one of the two steps.",
        REDUCED_TOKENS: "Blocks that reduce tokens compute attention themselves: remove one of the two steps.",
    }

    def attentions(self, subject: Subject) -> dict[str, FullAttention]:
        """The attentions to swap by name, their projections plain linears; raises SpecError if they are not."""
        found = full_attentions(subject)
        for name, attention in found.items():
            for part in (attention.q, attention.k, attention.v, attention.o):
                if type(part) is not nn.Linear:
                    message, remedy = f"has a {type(part).__name__} inside", self.refuses[INTEGER_CODES]
                    raise SpecError.of("model", name, message, remedy)
        return found

    def causal_attentions(self, subject: Subject) -> dict[str, FullAttention]:
        """The same; raises SpecError if the model sees tokens on both sides."""
        found = self.attentions(subject)
        if any(not attention.causal for attention in found.values()):
            message = "is bidirectional, and a recurrent state only goes forward"
            raise SpecError.of("model", type(subject.model).__name__, message, CAUSAL_REMEDY)
        return found


def warn_trained(subject: Subject, context: Context, mixing: str) -> None:
    """Say in the log that trained projections, which stay, mean something else from now on."""
    if subject.trained:
        message = f"{mixing} uses the trained projections differently than softmax attention does: train again"
        context.record.event("warning", message)
