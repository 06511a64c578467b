"""How many tokens a model has at most: what maps tokens to tokens is made for that many."""

from core.algorithms.module_swapping import REMEDY, transformer
from core.errors import SpecError
from core.models.encoder import Encoder
from core.models.gpt import Gpt
from core.models.vit import Vit
from core.subject import Subject


def token_count(subject: Subject) -> int:
    """Tokens of the longest text or of an image, a class token included; raises SpecError if it is not known."""
    model = transformer(subject)
    if isinstance(model, Gpt):
        return model.length
    if isinstance(model, Vit):
        return model.position_embedding.shape[1]
    if isinstance(model, Encoder):
        return model.length + (model.cls is not None)
    raise SpecError.of("model", type(model).__name__, "does not state its maximum number of tokens", REMEDY)
