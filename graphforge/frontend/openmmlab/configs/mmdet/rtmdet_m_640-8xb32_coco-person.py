"""RTMDet-m for persons at 640x640: the larger detector of RTMPose's project."""

_base_ = "mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py"

model = dict(
    backbone=dict(init_cfg=None),
    bbox_head=dict(num_classes=1),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.6), max_per_img=100
    ),
)

metainfo = dict(classes=("person",), palette=[(220, 20, 60)])
test_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = test_dataloader
