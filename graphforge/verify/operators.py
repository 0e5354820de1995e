"""How PyTorch's operators round, by name: what adds up products, what has a fixed range, what rounds nothing."""

from __future__ import annotations

__all__ = ["BOUNDED_BELOW", "CHOICES", "CONTRACTIONS", "EXACT", "EXPONENTIALS", "GATES", "OF_FIXED_RANGE", "REDUCTIONS"]

# They add up many products, and lose to rounding what a step in every operand makes of the sum.
CONTRACTIONS = frozenset(
    """
    mm addmm bmm baddbmm addbmm addmv mv dot vdot linear matmul einsum convolution _convolution conv1d conv2d
    conv3d convolution_overrideable conv_transpose1d conv_transpose2d mkldnn_convolution _slow_conv2d_forward
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math scaled_dot_product_attention
    _native_multi_head_attention _transformer_encoder_layer_fwd _grouped_mm sum nansum mean cumsum cumprod prod
    norm linalg_vector_norm linalg_matrix_norm logsumexp logcumsumexp native_layer_norm native_group_norm
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_impl_index
    batch_norm layer_norm group_norm instance_norm rms_norm _fused_rms_norm avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool2d upsample_linear1d
    upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    grid_sampler_2d grid_sampler_3d grid_sampler index_add scatter_add scatter_reduce index_put _fft_r2c _fft_c2r
    _fft_c2c mkldnn_rnn_layer lstm gru cdist _cdist_forward _euclidean_dist _pdist_forward _embedding_bag
    _embedding_bag_forward_only lerp addcmul addcdiv _trilinear linalg_inv_ex linalg_solve_ex _linalg_solve_ex
    linalg_lu_factor_ex linalg_qr _linalg_det _linalg_slogdet _linalg_svd linalg_cross trace kron outer addr
    roi_align ps_roi_align deform_conv2d
    """.split()
)

# They add up a whole axis.
REDUCTIONS = frozenset("sum nansum mean var std norm linalg_vector_norm logsumexp prod".split())

# Their results lie in a fixed range, and runtimes compute them to so many digits of that range: a sigmoid of 1e-5 is
# off by 1e-7 in any good one.
OF_FIXED_RANGE = frozenset("sigmoid tanh erf erfc softmax _softmax _log_softmax log_softmax sin cos".split())

# The same, as a factor of the operand.
GATES = frozenset("gelu silu mish expm1 log_sigmoid_forward softplus".split())

# Below zero these are an exponential less a number, in most runtimes: they round as the exponential does.
EXPONENTIALS = frozenset("elu selu celu".split())

# Below zero these come near a number that does not grow with the operand.
BOUNDED_BELOW = frozenset("expm1 log_sigmoid_forward softplus".split())

# Nothing is rounded: elements are moved, picked, compared or kept.
EXACT = frozenset(
    """
    clone copy _to_copy contiguous cat stack hstack vstack index index_select gather take take_along_dim scatter
    slice_scatter select_scatter diagonal_scatter as_strided_scatter where masked_fill masked_scatter
    masked_select max min amax amin aminmax maximum minimum fmax fmin max_pool1d max_pool2d max_pool3d
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    fractional_max_pool2d relu relu6 hardtanh clamp clamp_min clamp_max threshold neg abs sign signbit floor ceil
    round trunc frac sort topk kthvalue median nanmedian mode cummax cummin repeat repeat_interleave
    constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d pad embedding fill zero full full_like zeros zeros_like ones ones_like empty empty_like
    empty_strided new_empty new_zeros new_ones new_full new_empty_strided arange eye scalar_tensor lift_fresh
    lift_fresh_copy one_hot nonzero unfold im2col roll flip rot90 tril triu upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d pixel_shuffle
    pixel_unshuffle channel_shuffle unique _unique2 unique_dim unique_consecutive nan_to_num alias detach rand
    randn rand_like randn_like uniform normal bernoulli multinomial randint randperm dropout native_dropout set
    resize complex view_as_real view_as_complex real imag conj _conj resolve_conj resolve_neg _local_scalar_dense
    item equal max_unpool2d max_unpool3d copysign isclose nms
    """.split()
)

# They choose among elements, and of equal ones any.
CHOICES = frozenset("topk sort kthvalue median nanmedian argmax argmin max min".split())
