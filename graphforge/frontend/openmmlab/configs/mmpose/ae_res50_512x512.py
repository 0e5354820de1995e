"""Bottom-up pose by associative embedding on ResNet-50: the stock HRNet config with the backbone of MMPose 0.x."""

_base_ = "mmpose::body_2d_keypoint/associative_embedding/coco/ae_hrnet-w32_8xb24-300e_coco-512x512.py"

model = dict(
    backbone=dict(_delete_=True, type="ResNet", depth=50),
    head=dict(in_channels=2048, deconv_out_channels=(256, 256, 256), deconv_kernel_sizes=(4, 4, 4)),
)
