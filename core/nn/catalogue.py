"""The classes that an artifact's manifest may name: nothing else is ever constructed from one."""

from core.nn.activation_quant_linear import ActivationQuantLinear
from core.nn.adapted_linear import AdaptedLinear
from core.nn.attention.bigbird import BigBirdAttention
from core.nn.attention.block_local import BlockLocalAttention
from core.nn.attention.etc import EtcAttention
from core.nn.attention.huggingface_quantized_kv import HuggingFaceQuantizedKv
from core.nn.attention.huggingface_quantized_products import HuggingFaceQuantizedProducts
from core.nn.attention.huggingface_sliding_window import HuggingFaceSlidingWindow
from core.nn.attention.linear_attention import LinearAttention
from core.nn.attention.quantized_kv import QuantizedKvAttention
from core.nn.attention.quantized_products import QuantizedProductsAttention
from core.nn.attention.retention import Retention
from core.nn.attention.sliding_window import SlidingWindowAttention
from core.nn.attention.sparse_qkv import SparseQkvAttention
from core.nn.binary_linear import BinaryLinear
from core.nn.bit_linear import BitLinear
from core.nn.corrected_linear import CorrectedLinear
from core.nn.dynamic_int8_linear import DynamicInt8Linear
from core.nn.experts.huggingface import HuggingFaceExperts
from core.nn.experts.low_rank import LowRankExpertLinear
from core.nn.experts.noisy_top_k import NoisyTopKExperts
from core.nn.experts.packed import PackedExpertLinear, SparseExpertLinear
from core.nn.experts.switch import SwitchExperts
from core.nn.experts.top2 import Top2Experts
from core.nn.ffn.geglu import Geglu
from core.nn.ffn.sparse_ffn import SparseFfn
from core.nn.format_linear import FormatLinear
from core.nn.gmlp import GmlpBlock
from core.nn.integer_functions import IntegerGelu
from core.nn.llm_int8_linear import LlmInt8Linear
from core.nn.low_rank_linear import LowRankLinear
from core.nn.mamba import Mamba, MambaBlock
from core.nn.mixer import TokenMixing
from core.nn.multiplicative import MultiplicativeLinear
from core.nn.packed_embedding import PackedEmbedding
from core.nn.palette_linear import PaletteLinear
from core.nn.quant_linear import QuantLinear
from core.nn.replacement import Replacement
from core.nn.reversible import ReversibleStack
from core.nn.rotated_input import RotatedInput
from core.nn.rounded_input import RoundedInput
from core.nn.rwkv.block import RwkvBlock
from core.nn.rwkv.wkv import Wkv
from core.nn.selective_scan import SelectiveScan
from core.nn.sliced import SlicedBlock, SlicedNorm
from core.nn.sparse_conv2d import SparseConv2d
from core.nn.sparse_integer_linear import (
    SparseActivationQuantLinear,
    SparseDynamicInt8Linear,
    SparseLlmInt8Linear,
    SparseQuantLinear,
)
from core.nn.sparse_linear import SparseLinear
from core.nn.tokens.global_tokens import GlobalTokens
from core.nn.tokens.merging import MergingBlock
from core.nn.tokens.selecting import SelectingBlock

REPLACEMENTS: dict[str, type[Replacement]] = {
    "ActivationQuantLinear": ActivationQuantLinear,
    "AdaptedLinear": AdaptedLinear,
    "BigBirdAttention": BigBirdAttention,
    "BinaryLinear": BinaryLinear,
    "BitLinear": BitLinear,
    "BlockLocalAttention": BlockLocalAttention,
    "EtcAttention": EtcAttention,
    "GlobalTokens": GlobalTokens,
    "CorrectedLinear": CorrectedLinear,
    "DynamicInt8Linear": DynamicInt8Linear,
    "FormatLinear": FormatLinear,
    "Geglu": Geglu,
    "LlmInt8Linear": LlmInt8Linear,
    "LowRankExpertLinear": LowRankExpertLinear,
    "LowRankLinear": LowRankLinear,
    "MergingBlock": MergingBlock,
    "NoisyTopKExperts": NoisyTopKExperts,
    "PackedEmbedding": PackedEmbedding,
    "PackedExpertLinear": PackedExpertLinear,
    "QuantizedKvAttention": QuantizedKvAttention,
    "QuantizedProductsAttention": QuantizedProductsAttention,
    "PaletteLinear": PaletteLinear,
    "QuantLinear": QuantLinear,
    "RotatedInput": RotatedInput,
    "SelectingBlock": SelectingBlock,
    "SlicedBlock": SlicedBlock,
    "SlicedNorm": SlicedNorm,
    "SparseActivationQuantLinear": SparseActivationQuantLinear,
    "SparseConv2d": SparseConv2d,
    "SparseExpertLinear": SparseExpertLinear,
    "SparseDynamicInt8Linear": SparseDynamicInt8Linear,
    "SparseLinear": SparseLinear,
    "SparseLlmInt8Linear": SparseLlmInt8Linear,
    "SparseQuantLinear": SparseQuantLinear,
    "SwitchExperts": SwitchExperts,
    "Top2Experts": Top2Experts,
    "HuggingFaceExperts": HuggingFaceExperts,
    "HuggingFaceQuantizedKv": HuggingFaceQuantizedKv,
    "HuggingFaceQuantizedProducts": HuggingFaceQuantizedProducts,
    "HuggingFaceSlidingWindow": HuggingFaceSlidingWindow,
    "IntegerGelu": IntegerGelu,
    "LinearAttention": LinearAttention,
    "Mamba": Mamba,
    "MambaBlock": MambaBlock,
    "Retention": Retention,
    "RoundedInput": RoundedInput,
    "RwkvBlock": RwkvBlock,
    "SelectiveScan": SelectiveScan,
    "TokenMixing": TokenMixing,
    "GmlpBlock": GmlpBlock,
    "Wkv": Wkv,
    "MultiplicativeLinear": MultiplicativeLinear,
    "SlidingWindowAttention": SlidingWindowAttention,
    "ReversibleStack": ReversibleStack,
    "SparseFfn": SparseFfn,
    "SparseQkvAttention": SparseQkvAttention,
}
