"""Bottom-up pose by associative embedding on MobileNetV2: the stock HRNet config with the backbone of MMPose 0.x."""

_base_ = "mmpose::body_2d_keypoint/associative_embedding/coco/ae_hrnet-w32_8xb24-300e_coco-512x512.py"

model = dict(
    backbone=dict(_delete_=True, type="MobileNetV2", widen_factor=1.0, out_indices=(7,)),
    head=dict(in_channels=1280, deconv_out_channels=(256, 256, 256), deconv_kernel_sizes=(4, 4, 4)),
)
