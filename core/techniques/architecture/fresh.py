"""What steps refuse that draw weights anew: whatever an earlier step did to the weights would be lost with them."""

from core.technique import INTEGER_CODES, LOW_RANK, MASK, REDUCED_TOKENS, ROTATED_STREAM

REFUSES = {
    MASK: "This step initializes new weights: put it before the step that prunes.",
    INTEGER_CODES: "This step initializes new weights: put it before the step that quantizes.",
    LOW_RANK: "This step initializes new weights: put it before the step that factors.",
    ROTATED_STREAM: "This step initializes new weights: remove one of the two steps.",
    REDUCED_TOKENS: "Blocks that reduce tokens call their parts directly: remove one of the two steps.",
}
