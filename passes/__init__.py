"""The passes: one file each, file name = pass name.  ``default_pipeline`` is the canonical order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "graphforge.passes":
    raise ImportError(
        f"the passes were imported as {__name__!r}; import them as graphforge.passes, else each would exist twice"
    )

if TYPE_CHECKING:
    from graphforge.transform import Pass

__all__ = ["default_pipeline"]


def default_pipeline() -> list[Pass]:
    """The passes that bring a captured graph into canonical form, in order."""
    from graphforge.passes.deduplicate_weights import DeduplicateWeights
    from graphforge.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
    from graphforge.passes.eliminate_dead_code import EliminateDeadCode
    from graphforge.passes.fold_batch_norm import FoldBatchNorm
    from graphforge.passes.fold_constants import FoldConstants
    from graphforge.passes.fold_scale_into_weights import FoldScaleIntoWeights
    from graphforge.passes.fuse_gelu import FuseGelu
    from graphforge.passes.fuse_hard_swish import FuseHardSwish
    from graphforge.passes.fuse_layer_norm import FuseLayerNorm
    from graphforge.passes.fuse_matmul_add import FuseMatmulAdd
    from graphforge.passes.fuse_pad_into_conv import FusePadIntoConv
    from graphforge.passes.fuse_rms_norm import FuseRmsNorm
    from graphforge.passes.inline_branches import InlineBranches
    from graphforge.passes.merge_attention_heads import MergeAttentionHeads
    from graphforge.passes.merge_concats import MergeConcats
    from graphforge.passes.merge_constants import MergeConstants
    from graphforge.passes.merge_reshapes import MergeReshapes
    from graphforge.passes.merge_slices import MergeSlices
    from graphforge.passes.merge_transposes import MergeTransposes
    from graphforge.passes.remove_identities import RemoveIdentities
    from graphforge.passes.simplify_shapes import SimplifyShapes
    from graphforge.passes.sink_transposes import SinkTransposes
    from graphforge.passes.unpack_sequences import UnpackSequences

    return [
        # Less to look at for everything that follows.
        EliminateDeadCode(),
        # Shapes become known here, and the rest needs them.
        FoldConstants(),
        RemoveIdentities(),
        # A branch and a sequence hide what is computed from everything else.
        InlineBranches(),
        UnpackSequences(),
        # Equal constants must be one value for equal nodes to be seen as equal; large ones can wait for the end.
        DeduplicateWeights(max_bytes=1 << 12),
        EliminateCommonSubexpressions(),
        # Reshape targets become constants: reshapes can merge only then.
        SimplifyShapes(),
        # Whole operators from their parts, before the parts are drawn into weights.
        FuseLayerNorm(),
        FuseRmsNorm(),
        FuseGelu(),
        FuseHardSwish(),
        # Into the weights: the padding and the bias first, what follows then sees the Conv and the Gemm.
        FusePadIntoConv(),
        FuseMatmulAdd(),
        FoldBatchNorm(),
        FoldScaleIntoWeights(),
        # Constants that found no weight.
        MergeConstants(),
        # A BatchNorm or a factor between two of these is gone by now, and what is left lets them pass.
        # Pairs that stand together first: sinking one of them would part them.
        MergeTransposes(),
        SinkTransposes(),
        MergeTransposes(),
        MergeConcats(),
        MergeReshapes(),
        MergeSlices(),
        # Reshapes and transposes have settled: those around an Attention are its own business.
        MergeAttentionHeads(),
        # A BatchNorm that went into a MatMul has left an Add.
        FuseMatmulAdd(),
        # What the fusions left over.
        FoldConstants(),
        RemoveIdentities(),
        MergeReshapes(),
        DeduplicateWeights(),
        EliminateCommonSubexpressions(),
        EliminateDeadCode(),
    ]
