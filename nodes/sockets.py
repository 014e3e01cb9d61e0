"""The pack's own socket types. The name of each is a contract between nodes and with saved workflows."""

from comfy_api.latest import io

# A comfy ModelPatcher around realportrait_core.vid2vid.FaceVid2Vid.
Vid2Vid = io.Custom("REALPORTRAIT_VID2VID")

# LivePortrait's three MLPs on keypoints, as realportrait_core.vid2vid.checkpoint.load_stitching gives them.
Stitching = io.Custom("REALPORTRAIT_STITCHING")

# realportrait_core.animation.keypoints.Keypoints: the poses of the portrait and of every driving frame, with their crops.
Keypoints = io.Custom("REALPORTRAIT_KEYPOINTS")

# realportrait_core.animation.mapping.PortraitMotion: the motion position maps of every driving frame. They are computed where
# they are needed; no full-size map is kept.
Motion = io.Custom("REALPORTRAIT_MOTION")

# realportrait_core.long.state.ContinuationState: what the next clip needs of the clips before it.
State = io.Custom("REALPORTRAIT_STATE")
