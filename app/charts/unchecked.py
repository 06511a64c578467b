"""Charts that Altair does not validate against Vega-Lite's schema each time they are drawn."""

from typing import Any

import altair as alt


class Unchecked(alt.LayerChart):
    """Layers whose specification we write ourselves; a test validates it."""

    def to_dict(self, validate: bool = False, **options: Any) -> dict[str, Any]:
        """The specification; `validate=True` validates it against the schema."""
        return super().to_dict(validate=validate, **options)
