"""Made-up surveys with known exponents."""

from core.complexity.report import Costs, MeasuredArchitecture, SurveyConditions, SurveyReport

LENGTHS = [256, 512, 1024, 2048, 4096]


def measured(name: str, power: float, *, decodes: bool = True, operations: float = 0.0) -> MeasuredArchitecture:
    """An architecture whose costs grow with `power`; its operations by so many a token."""
    grown = [length**power for length in LENGTHS]
    return MeasuredArchitecture(
        name=name,
        technique=None if name == "full attention" else name,
        model="builtin:gpt" if decodes else "builtin:encoder",
        settings={"window": 64},
        summary=f"What {name} does.",
        paper="https://arxiv.org/abs/1706.03762",
        costs=Costs(
            train_ms=[1e-3 * cost for cost in grown],
            forward_ms=[3e-4 * cost for cost in grown],
            decode_ms=[0.5] * 5 if decodes else [None] * 5,
            train_bytes=[1e3 * length for length in LENGTHS],
            state_bytes=[64.0 * cost for cost in grown] if decodes else [None] * 5,
            operations=[300 + operations * length for length in LENGTHS],
        ),
    )


def report(*architectures: MeasuredArchitecture, refused: dict[str, str] | None = None) -> SurveyReport:
    """A survey with two blocks."""
    conditions = SurveyConditions(
        taken_at="2026-11-22 06:00",
        hardware="A processor, 2 cores",
        threads=2,
        torch="2.13.0",
        slimboard="0.1.0",
        dtype="float32",
        dim=64,
        depth=2,
        heads=2,
        rounds=7,
        disturbed_share=0.03,
    )
    return SurveyReport(
        conditions=conditions, lengths=LENGTHS, architectures=list(architectures), refused=refused or {}
    )
