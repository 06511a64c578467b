"""What each ATen operation does to the channels of its tensors: which of their dimensions its result has.

An operation gives the same result in another order when its inputs come in another order along a label that is not
frozen. What has no rule here freezes all that it touches.
"""

from typing import Any

import torch

from core.models.channels import arithmetic, layout
from core.models.channels.calls import Rule

OPERATIONS: dict[Rule, str] = {
    layout.same: "alias detach lift_fresh _to_copy contiguous _softmax _log_softmax _safe_softmax",
    arithmetic.pointwise: "copy_ _prelu_kernel _conj",
    layout.transposed: "t transpose permute",
    layout.viewed: "view _unsafe_view reshape _reshape_alias squeeze unsqueeze",
    layout.expanded: "expand",
    layout.repeated: "repeat",
    layout.constant: "empty_like zeros_like ones_like full_like new_zeros new_ones new_full zeros ones full",
    layout.selected: "select unbind",
    layout.index_selected: "index_select",
    layout.index_copied: "index_copy_ index_copy",
    layout.indexed: "index",
    layout.sliced: "slice",
    layout.split: "split split_with_sizes chunk unsafe_split unsafe_split_with_sizes unsafe_chunk",
    layout.gated: "glu",
    layout.concatenated: "cat",
    layout.stacked: "stack",
    arithmetic.multiplied: "mm addmm bmm baddbmm",
    arithmetic.convolved: "convolution",
    arithmetic.batch_normed: (
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_with_update"
    ),
    arithmetic.layer_normed: "native_layer_norm _fused_rms_norm",
    arithmetic.embedded: "embedding",
    arithmetic.reduced: "mean sum amax amin var std prod logsumexp linalg_vector_norm norm var_mean",
    arithmetic.over_space: (
        "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d "
        "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d"
    ),
    layout.padded: "constant_pad_nd",
    arithmetic.attended: (
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable"
    ),
}
RULES = {f"aten::{name}": rule for rule, names in OPERATIONS.items() for name in names.split()}


def rule_of(operation: Any) -> Rule | None:
    """The rule of an ATen operation; None if it has none."""
    known = RULES.get(operation._schema.name)
    tags = operation.tags
    if known is None and torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags:
        return arithmetic.pointwise
    return known
