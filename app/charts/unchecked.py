"""Charts that Altair does not compare with Vega-Lite's schema each time they are drawn."""

from typing import Any

import altair as alt


class Unchecked(alt.LayerChart):
    """Layers whose specification is ours: a test holds it to the schema."""

    def to_dict(self, validate: bool = False, **options: Any) -> dict[str, Any]:
        """The specification; `validate=True` compares it with the schema."""
        return super().to_dict(validate=validate, **options)
