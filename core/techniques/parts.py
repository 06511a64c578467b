"""Which of a Transformer's parts architecture steps leave in a model, and which of them later steps need.

Sets are for `Technique.leaves`, mappings for `Technique.refuses`: what a step must not find, with the remedy.
"""

from core.technique import ROTATED_INPUTS

SWAPPED_ATTENTION = "attention that is not full"
NO_FULL_ATTENTION = "no full attention"
QUANTIZED_PRODUCTS = "quantized products of attention"
NO_HEADS = "no heads of plain projections"
NO_DENSE_FFN = "no dense feed-forward network"
EXPERTS = "experts"
OTHER_BLOCKS = "blocks of another kind"
TWO_STREAMS = "two streams"
OTHER_HEAD = "a multiplicative head"
FEWER_HEADS = "fewer heads"

OTHER_ATTENTION = frozenset({SWAPPED_ATTENTION, NO_FULL_ATTENTION})
OTHER_MIXING = OTHER_ATTENTION | {NO_HEADS}
WHOLE_BLOCKS = frozenset({NO_DENSE_FFN, OTHER_BLOCKS})

NEEDS_FULL_ATTENTION = {NO_FULL_ATTENTION: "This step replaces full attention: remove one of the two steps."}
NEEDS_DENSE_FFN = dict.fromkeys(
    (NO_DENSE_FFN, ROTATED_INPUTS), "This step replaces dense feed-forward networks: remove one of the two steps."
)
NEEDS_PLAIN_BLOCKS = dict.fromkeys(
    (SWAPPED_ATTENTION, NO_DENSE_FFN, EXPERTS, TWO_STREAMS, ROTATED_INPUTS),
    "This step needs blocks with full attention and a dense feed-forward network: remove one of the two steps.",
)
NEEDS_BOTH_HALVES = dict.fromkeys(
    (NO_HEADS, NO_DENSE_FFN, EXPERTS, TWO_STREAMS),
    "This step prunes both halves of every block: use depth_pruning, ffn_pruning or head_pruning.",
) | {ROTATED_INPUTS: "Layers that rotate their inputs cannot be cut: put this step before rotation."}
NEEDS_PLAIN_HEAD = {OTHER_HEAD: "This step prunes the head's inputs: remove one of the two steps."}
