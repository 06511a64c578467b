"""What is compared: recipes by name for each group, and the order in which the papers see them.

A `train` takes its budget from the vehicle: all of its updates, or the `share` of them.
"""

from dataclasses import dataclass
from typing import Any

Step = dict[str, dict[str, Any]]
Recipe = list[Step]


@dataclass(frozen=True)
class Claim:
    """The first arm is expected to lose less than the second."""

    better: str
    worse: str


@dataclass(frozen=True)
class Group:
    """Arms that are compared on the same vehicles."""

    vehicles: list[str]
    arms: dict[str, Recipe]
    claims: list[Claim]


def train(*methods: Step, **settings: Any) -> Step:
    """The vehicle's whole training with these methods."""
    return {"train": {"methods": list(methods), **settings}}


def half(*methods: Step, **settings: Any) -> Step:
    """Half of the vehicle's training."""
    return train(*methods, share=0.5, **settings)


DENSE = [train()]
BF16 = [train(), {"cast": {"dtype": "bf16"}}]
SKIP = {"indivisible": "skip"}  # the first convolution has one input channel
TWO_OF_FOUR: Step = {"nm_pruning": {"n": 2, "m": 4, **SKIP}}
RECOVERY = {"share": 0.2, "learning_rate": 3e-4}


def permutation() -> Group:
    """2:4 after one dense training, in the default and in the permuted order of channels."""
    return Group(
        ["vit", "gpt", "resnet", "llama"],
        {
            "dense": DENSE,
            "bf16": BF16,
            "2:4": [train(), TWO_OF_FOUR],
            "permuted 2:4": [train(), {"channel_permutation": {}}, TWO_OF_FOUR],
        },
        [Claim("permuted 2:4", "2:4"), Claim("bf16", "permuted 2:4")],
    )


def nm_training() -> Group:
    """2:4 by training: as many updates for every arm."""
    return Group(
        ["vit", "gpt", "resnet"],
        {
            "dense": DENSE,
            "one-shot": [train(), TWO_OF_FOUR],
            "ASP": [half(), TWO_OF_FOUR, half()],
            "STE": [train({"sr_ste": {"lambda": 0.0, **SKIP}})],
            "SR-STE": [train({"sr_ste": SKIP})],
        },
        [Claim("STE", "one-shot"), Claim("SR-STE", "STE"), Claim("SR-STE", "ASP"), Claim("dense", "SR-STE")],
    )


def permuted_training() -> Group:
    """Channels permuted before ASP's pruning, at equal updates: what the order is worth after training."""
    return Group(
        ["vit", "gpt", "resnet"],
        {
            "dense": DENSE,
            "ASP": [half(), TWO_OF_FOUR, half()],
            "permuted ASP": [half(), {"channel_permutation": {}}, TWO_OF_FOUR, half()],
        },
        [Claim("permuted ASP", "ASP"), Claim("dense", "permuted ASP")],
    )


def sparse_training() -> Group:
    """Sparse from the start or on the way, at equal updates; 80/50 is forward and backward sparsity in %."""
    arms: dict[str, Recipe] = {"dense": DENSE}
    claims = []
    for sparsity, backward in ((0.8, 0.5), (0.9, 0.8)):
        percent = f"{sparsity:.0%}".replace("%", " %")
        top_kast = f"Top-KAST {100 * sparsity:.0f}/{100 * backward:.0f}"
        arms |= {
            f"gradual magnitude {percent}": [train({"magnitude_pruning": {"sparsity": sparsity}})],
            top_kast: [train({"top_kast": {"density": 1 - sparsity, "extra_density": sparsity - backward}})],
            f"RigL {percent}": [train({"rigl": {"sparsity": sparsity}})],
            f"static random {percent}": [train({"rigl": {"sparsity": sparsity, "grow": "none"}})],
        }
        claims += [
            Claim("dense", top_kast),
            Claim(top_kast, f"static random {percent}"),
            Claim(f"RigL {percent}", f"static random {percent}"),
            Claim(top_kast, f"RigL {percent}"),
            Claim(f"gradual magnitude {percent}", top_kast),
        ]
    return Group(["vit"], arms, claims)


def top_kast() -> Group:
    """What Top-KAST at 80/50 loses by its exploration, beside static masks of its own distribution."""

    def arm(**settings: Any) -> Recipe:
        return [train({"top_kast": {"density": 0.2, "extra_density": 0.3, **settings}})]

    static = {"sparsity": 0.8, "grow": "none"}
    return Group(
        ["vit"],
        {
            "exploration 1e-2": arm(exploration_strength=1e-2),
            "exploration 1e-3": arm(exploration_strength=1e-3),
            "exploration 1e-4": arm(exploration_strength=1e-4),
            "no exploration loss": arm(exploration_strength=0),
            "no exploration set": arm(exploration_strength=0, extra_density=0.0),
            "1e-4, sets every 100": arm(exploration_strength=1e-4, update_every=100),
            "static ERK": [train({"rigl": static})],
            "static uniform": [train({"rigl": {**static, "distribution": "uniform"}})],
        },
        [Claim("exploration 1e-3", "exploration 1e-2"), Claim("exploration 1e-3", "static uniform")],
    )


def sr_ste() -> Group:
    """How strong the decay of pruned weights must be for SR-STE to gain on STE, with AdamW and with the paper's SGD."""
    arms: dict[str, Recipe] = {}
    for optimizer, settings in (("AdamW", {}), ("SGD", {"optimizer": "sgd", "learning_rate": 0.1})):
        for decay in (0.0, 2e-5, 2e-4, 2e-3):
            name = f"{optimizer}, {f'decay {decay:g}' if decay else 'STE'}"
            arms[name] = [train({"sr_ste": {"lambda": decay, **SKIP}}, **settings)]
    claims = [Claim(name, f"{name.split(',')[0]}, STE") for name in arms if "STE" not in name]
    return Group(["resnet"], arms, claims)


def calibrated() -> Group:
    """After one dense training, without any more: magnitude against scores that see the inputs."""
    arms: dict[str, Recipe] = {"dense": DENSE, "bf16": BF16}
    claims = []
    patterns: dict[str, tuple[Step, Step, Step]] = {
        "50 %": (
            {"magnitude_pruning": {"sparsity": 0.5}},
            {"wanda": {"sparsity": 0.5}},
            {"sparsegpt": {"sparsity": 0.5}},
        ),
        "2:4": (
            TWO_OF_FOUR,
            {"nm_pruning": {"n": 2, "m": 4, "score": "wanda"}},
            {"sparsegpt": {"structure": "n:m", "n": 2, "m": 4}},
        ),
    }
    for pattern, (magnitude, wanda, sparsegpt) in patterns.items():
        arms |= {
            f"magnitude {pattern}": [train(), magnitude],
            f"Wanda {pattern}": [train(), wanda],
            f"SparseGPT {pattern}": [train(), sparsegpt],
        }
        claims += [
            Claim(f"Wanda {pattern}", f"magnitude {pattern}"),
            Claim(f"SparseGPT {pattern}", f"magnitude {pattern}"),
            Claim(f"SparseGPT {pattern}", f"Wanda {pattern}"),
        ]
    return Group(["gpt", "llama", "vit"], arms, claims)


def wanda() -> Group:
    """What costs Wanda its lead on a ViT: the score, or that weights compete within an output."""
    arms: dict[str, Recipe] = {
        "dense": DENSE,
        "magnitude, layer": [train(), {"magnitude_pruning": {"sparsity": 0.5}}],
        "Wanda, output": [train(), {"wanda": {"sparsity": 0.5}}],
        "Wanda, layer": [train(), {"wanda": {"sparsity": 0.5, "comparison_group": "layer"}}],
    }
    claims = [Claim("Wanda, layer", "Wanda, output"), Claim("Wanda, layer", "magnitude, layer")]
    return Group(["vit", "gpt"], arms, claims)


def structured() -> Group:
    """Whole parts taken out, then a short recovery, against the same share of random parts."""
    arms: dict[str, Recipe] = {"dense": DENSE, "bf16": BF16}
    claims = []
    for share in (0.25, 0.5):
        percent = f"{100 * share:.0f} %"
        for name, technique, settings, rival in (
            ("FFN units", "ffn_pruning", {"pruning_ratio": share}, {"importance": "random"}),
            ("heads", "head_pruning", {"pruning_ratio": share}, {"importance": "random"}),
            ("blocks", "depth_pruning", {"pruning_ratio": share}, {"strategy": "random"}),
        ):
            ours, random = f"{name} {percent}", f"random {name} {percent}"
            arms[ours] = [train(), {technique: settings}, train(**RECOVERY)]
            arms[random] = [train(), {technique: {**settings, **rival}}, train(**RECOVERY)]
            claims.append(Claim(ours, random))
        unscaled = {"head_pruning": {"pruning_ratio": share, "normalize": False}}
        arms[f"heads across layers {percent}"] = [train(), unscaled, train(**RECOVERY)]
        claims.append(Claim(f"heads across layers {percent}", f"random heads {percent}"))
        arms[f"SliceGPT {percent}"] = [train(), {"slicegpt": {"slicing": share}}, train(**RECOVERY)]
    return Group(["vit", "gpt"], arms, claims)


GROUPS = {
    "permutation": permutation,
    "nm_training": nm_training,
    "permuted_training": permuted_training,
    "sparse_training": sparse_training,
    "top_kast": top_kast,
    "sr_ste": sr_ste,
    "calibrated": calibrated,
    "wanda": wanda,
    "structured": structured,
}
CAUSES = ("top_kast", "sr_ste", "wanda")  # why a paper's order does not come out: carried out only when asked for
