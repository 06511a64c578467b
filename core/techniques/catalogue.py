"""Every technique by its name: the one table to add a line to."""

from pydantic import ValidationError

from core.errors import SpecError, nearest
from core.plugins import load_plugins
from core.spec.model import StepSpec
from core.spec.pydantic_errors import list_problems
from core.technique import Technique
from core.techniques.architecture.gmlp import Gmlp
from core.techniques.architecture.linear_attention import LinearAttentionStep
from core.techniques.architecture.mamba import MambaStep
from core.techniques.architecture.mlp_mixer import MlpMixer
from core.techniques.architecture.retnet import Retnet
from core.techniques.architecture.reversible import Reversible
from core.techniques.architecture.rwkv import Rwkv
from core.techniques.architecture.sparse_ffn import SparseFfnTechnique
from core.techniques.architecture.sparse_loss import SparseLoss
from core.techniques.architecture.sparse_qkv import SparseQkv
from core.techniques.attention.bigbird import BigBird
from core.techniques.attention.block_local import BlockLocal
from core.techniques.attention.etc import Etc
from core.techniques.attention.sliding_window import SlidingWindow
from core.techniques.distillation.distill_logits import DistillLogits
from core.techniques.low_rank.svd import Svd
from core.techniques.mixture_of_experts.glam import Glam
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.mixture_of_experts.switch import Switch
from core.techniques.pruning.channel_permutation import ChannelPermutation
from core.techniques.pruning.cofi import Cofi
from core.techniques.pruning.depth_pruning import DepthPruning
from core.techniques.pruning.dynamic_vit import DynamicVit
from core.techniques.pruning.ffn_pruning import FfnPruning
from core.techniques.pruning.head_pruning import HeadPruning
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.movement_pruning import MovementPruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.pruning.reap import Reap
from core.techniques.pruning.slicegpt import Slicegpt
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.pruning.token_merging import TokenMerging
from core.techniques.pruning.wanda import Wanda
from core.techniques.pruning.width_pruning import WidthPruning
from core.techniques.quantization.activation_quantization import ActivationQuantization
from core.techniques.quantization.adaround import Adaround
from core.techniques.quantization.autoround import Autoround
from core.techniques.quantization.awq import Awq
from core.techniques.quantization.binary import Binary
from core.techniques.quantization.bitnet import Bitnet
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.gptq import Gptq
from core.techniques.quantization.hqq import Hqq
from core.techniques.quantization.imatrix import Imatrix
from core.techniques.quantization.kv_cache_quantization import KvCacheQuantization
from core.techniques.quantization.llm_int8 import LlmInt8
from core.techniques.quantization.lora_recovery import LoraRecovery
from core.techniques.quantization.low_rank_correction import LowRankCorrection
from core.techniques.quantization.lsq import Lsq
from core.techniques.quantization.mixed_precision import MixedPrecision
from core.techniques.quantization.number_format import NumberFormats
from core.techniques.quantization.palettize import Palettize
from core.techniques.quantization.ptq4vit import Ptq4vit
from core.techniques.quantization.repq_vit import RepqVit
from core.techniques.quantization.rotation import Rotation
from core.techniques.quantization.rtn import Rtn
from core.techniques.quantization.sensitivity import Sensitivity
from core.techniques.quantization.smoothquant import Smoothquant
from core.techniques.sparse_training.rigl import Rigl
from core.techniques.sparse_training.sr_ste import SrSte
from core.techniques.sparse_training.top_kast import TopKast
from core.techniques.training.train import Train

TECHNIQUES: dict[str, type[Technique]] = {
    "bigbird": BigBird,
    "block_local": BlockLocal,
    "etc": Etc,
    "channel_permutation": ChannelPermutation,
    "distill_logits": DistillLogits,
    "dynamic_vit": DynamicVit,
    "depth_pruning": DepthPruning,
    "ffn_pruning": FfnPruning,
    "head_pruning": HeadPruning,
    "cofi": Cofi,
    "moe": Moe,
    "switch": Switch,
    "glam": Glam,
    "magnitude_pruning": MagnitudePruning,
    "movement_pruning": MovementPruning,
    "nm_pruning": NmPruning,
    "wanda": Wanda,
    "sparsegpt": Sparsegpt,
    "slicegpt": Slicegpt,
    "reap": Reap,
    "rotation": Rotation,
    "kv_cache_quantization": KvCacheQuantization,
    "linear_attention": LinearAttentionStep,
    "mamba": MambaStep,
    "retnet": Retnet,
    "mlp_mixer": MlpMixer,
    "gmlp": Gmlp,
    "rwkv": Rwkv,
    "sliding_window": SlidingWindow,
    "reversible": Reversible,
    "sparse_ffn": SparseFfnTechnique,
    "sparse_loss": SparseLoss,
    "sparse_qkv": SparseQkv,
    "rigl": Rigl,
    "sr_ste": SrSte,
    "token_merging": TokenMerging,
    "top_kast": TopKast,
    "svd": Svd,
    "activation_quantization": ActivationQuantization,
    "binary": Binary,
    "bitnet": Bitnet,
    "adaround": Adaround,
    "autoround": Autoround,
    "cast": Cast,
    "dynamic_int8": DynamicInt8,
    "lora_recovery": LoraRecovery,
    "lsq": Lsq,
    "number_format": NumberFormats,
    "awq": Awq,
    "llm_int8": LlmInt8,
    "palettize": Palettize,
    "ptq4vit": Ptq4vit,
    "repq_vit": RepqVit,
    "rtn": Rtn,
    "sensitivity": Sensitivity,
    "mixed_precision": MixedPrecision,
    "gptq": Gptq,
    "imatrix": Imatrix,
    "smoothquant": Smoothquant,
    "low_rank_correction": LowRankCorrection,
    "hqq": Hqq,
    "train": Train,
    "width_pruning": WidthPruning,
}


def technique(step: StepSpec, field: str) -> Technique:
    """The technique with its settings; raises SpecError at `field` where name or settings are wrong."""
    offered = TECHNIQUES if step.technique in TECHNIQUES else load_plugins("techniques", Technique) | TECHNIQUES
    if step.technique not in offered:
        raise SpecError.of(field, step.technique, "is not a known technique", nearest(step.technique, offered))
    try:
        return offered[step.technique].model_validate(step.settings)
    except ValidationError as error:
        place, settings = f"{field}.{step.technique}", offered[step.technique].model_fields
        raise SpecError(list_problems(error, whole=place, inside=place, settings=settings)) from error
