"""Reversible: two streams through the blocks, so that a training keeps no activations of them.

Paper: https://arxiv.org/abs/2001.04451 (Reformer), as Terraformer has it (https://arxiv.org/abs/2111.12763). Weights
stay, but the model computes something else with them: train it after this step. The backward pass computes every
block a second time. Put it after the steps that swap attentions and feed-forward networks; whole blocks that steps
put in, and parts with a loss of their own (routers), cannot be reversed.
"""

from core.algorithms.module_swapping import transformer
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.reversible import ReversibleStack
from core.nn.transformer import TransformerBlock
from core.subject import Subject
from core.technique import INTEGER_CODES, REDUCED_TOKENS, ROTATED_STREAM, OneShot
from core.techniques.parts import EXPERTS, OTHER_BLOCKS, TWO_STREAMS


class Reversible(OneShot):
    """Make blocks reversible, so that training recomputes their activations instead of storing them."""

    family = Family.ARCHITECTURE
    paper = "https://arxiv.org/abs/2001.04451"
    compresses = False
    leaves = frozenset({TWO_STREAMS})
    refuses = {
        EXPERTS: "Routers add a loss that reversible blocks cannot backpropagate: remove one of the two steps.",
        OTHER_BLOCKS: "Only blocks of attention and a dense network can be reversible: remove one of the two steps.",
        TWO_STREAMS: "The blocks are reversible already: remove one of the two steps.",
        INTEGER_CODES: "A reversible model must be trained: put reversible before the step that quantizes.",
        ROTATED_STREAM: "Those blocks pass on a rotated stream: remove one of the two steps.",
        REDUCED_TOKENS: "Blocks that reduce tokens have a single stream: remove one of the two steps.",
    }

    def check(self, subject: Subject) -> None:
        """Blocks of an attention and a feed-forward network, neither of which adds a loss."""
        model = transformer(subject)
        for name, module in model.named_modules():
            own = name.startswith("blocks.")
            if (own and name.count(".") == 1 and type(module) is not TransformerBlock) or isinstance(
                module, ReversibleStack
            ):
                message = f"is a {type(module).__name__}, which cannot be reversed"
                raise SpecError.of("model", name, message, "Remove reversible, or the step that added this module.")
            if own and hasattr(module, "aux_losses"):
                message = "adds a loss of its own, which reversible blocks cannot backpropagate"
                raise SpecError.of("model", name, message, "Remove one of the two steps.")

    def apply(self, subject: Subject, context: Context) -> None:
        """Put the stack in the place of the list of blocks; parameters keep their names and values."""
        self.check(subject)  # earlier steps of the recipe may have swapped blocks
        if subject.trained:
            message = "the blocks compute a different function on two streams: the model needs training"
            context.record.event("warning", message)
        blocks = transformer(subject).blocks
        n_blocks = len(blocks)
        subject.replace("blocks", ReversibleStack(n_blocks).train(blocks.training))
        subject.details["layers"] = [{"name": "blocks", "reversible": n_blocks}]
