"""MLP-Mixer: a small network over the tokens in the place of attention.

Paper: https://arxiv.org/abs/2105.01601. The blocks' norms and feed-forward networks stay, which are the paper's channel
mixing. The paper's model has no positions and no class token; here they stay as the model has them (pooling: mean is
the paper's). It is made for one number of tokens: texts of builtin:encoder are followed by zeros up to the longest.
"""

from pydantic import Field

from core.algorithms.module_swapping import forget_training, whole_blocks
from core.algorithms.token_count import token_count
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.mixer import TokenMixing
from core.nn.transformer import TransformerBlock
from core.subject import Subject
from core.technique import OneShot
from core.techniques.architecture.fresh import REFUSES
from core.techniques.parts import NEEDS_PLAIN_BLOCKS, OTHER_MIXING


class MlpMixer(OneShot):
    """Replace full attention with an MLP over the tokens, shared by all channels."""

    family = Family.ARCHITECTURE
    limits_length = True
    paper = "https://arxiv.org/abs/2105.01601"
    leaves = OTHER_MIXING
    refuses = REFUSES | NEEDS_PLAIN_BLOCKS

    hidden: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="hidden width of the token-mixing MLP; dim / 2 if empty",
        json_schema_extra={"when_empty": "dim / 2"},
    )

    def label(self) -> str:
        """The hidden width, where it is chosen."""
        return "" if self.hidden is None else f"hidden {self.hidden}"

    def check(self, subject: Subject) -> None:
        """The model's blocks are a Transformer's still and see tokens on both sides, of a number that is known."""
        self._blocks(subject)
        token_count(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap every full attention."""
        blocks, tokens = self._blocks(subject), token_count(subject)
        forget_training(subject, context, "attentions")
        generator = context.generator("token mixing")
        rows = []
        for block_name, block in blocks.items():
            name, norm = f"{block_name}.attention", block.norm1.weight
            mixing = TokenMixing(tokens, self.hidden or max(1, norm.shape[0] // 2))
            mixing.initialize_(generator)
            subject.replace(name, mixing.to(norm.device, subject.dtype).train(block.training))
            rows.append({"name": name, "tokens": tokens, "hidden": mixing.hidden})
        subject.details["layers"] = rows

    def _blocks(self, subject: Subject) -> dict[str, TransformerBlock]:
        found = whole_blocks(subject)
        if any(block.attention.causal for block in found.values()):
            message = "predicts the next token, and the MLP would mix in later tokens"
            raise SpecError.of("model", type(subject.model).__name__, message, "Choose builtin:vit, or the step gmlp.")
        return found
