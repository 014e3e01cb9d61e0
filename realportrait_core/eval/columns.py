"""The figures of the report: their names, units, and which direction is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A metric as a column of a table."""

    title: str
    unit: str = ""
    better: int = 0  # 1: higher, -1: lower, 0: neither, as where the truth's own value is best
    digits: int = 3
    what: str = ""  # a sentence for the reader of the report


# In the report's order. Where a case has no truth, "the truth" is the driving video, of which only what a face does is compared.
COLUMNS = {
    # Pictures
    "psnr_db": Column("PSNR", "dB", 1, 2, "Peak signal-to-noise ratio to the truth; it rewards blur."),
    "ssim": Column("SSIM", "", 1, 4, "Structural similarity to the truth (Wang et al. 2004)."),
    "lpips": Column("LPIPS", "", -1, 3, "Learned perceptual distance to the truth (Zhang et al. 2018)."),
    "fid": Column("FID", "", -1, 1, "Fréchet distance of all Inception features to the truths'; small sets exaggerate it."),
    "st_lpips": Column("ST-LPIPS", "", -1, 3, "Shift-tolerant LPIPS to the truth (Ghildyal, Liu 2022); it is not LPIPS."),
    "frechet_stlpips": Column(
        "Fréchet (ST-LPIPS' VGG)",
        "",
        -1,
        3,
        "Fréchet distance of all pictures' features to the truths' in the VGG16 of ST-LPIPS; it is not FID.",
    ),
    "sharp": Column("sharp", "", 0, 3, "Laplacian energy in the facial mask over the truth's: 1 is as sharp, above it artefacts."),
    "spectrum_worst_db": Column(
        "worst octave", "dB", 0, 1, "Power around the face over the truth's, in the octave that differs most; below 0 is blur."
    ),
    "spectrum_finest_db": Column("finest octave", "dB", 0, 1, "The same in the finest octave."),
    "outside_error_255": Column("outside", "1/255", -1, 2, "Mean error outside the facial mask: hair, shoulders, background."),
    # Who it is
    "identity_similarity": Column("identity", "", 1, 3, "Cosine of the face's embedding and the portrait's."),
    # What the face does
    "expression_l1": Column("expression L1", "", -1, 4, "Mean distance of the expression parameters from the truth's."),
    "pose_l1": Column("pose L1", "rad", -1, 4, "Mean distance of the head's three angles from the truth's."),
    "expression_change_l1": Column(
        "expression change L1", "", -1, 4, "The same of the change since the portrait and the driving frame 0."
    ),
    "pose_change_l1": Column("pose change L1", "rad", -1, 4, "The same of the head's angles."),
    "smirk_expression_l1": Column("expression L1 (SMIRK)", "", -1, 4, "Distance of SMIRK's expression, as in the paper."),
    "smirk_pose_l1": Column("pose L1 (SMIRK)", "rad", -1, 4, "Distance of SMIRK's pose, as in the paper."),
    "landmarks_px": Column("landmarks", "px", -1, 2, "Distance of MediaPipe's landmarks of eyes, lips and brows from the truth's."),
    "landmarks_eyes_px": Column("eyes", "px", -1, 2, "The same of the eyes alone."),
    "landmarks_lips_px": Column("lips", "px", -1, 2, "The same of the lips alone."),
    "landmarks_brows_px": Column("brows", "px", -1, 2, "The same of the brows alone."),
    "mouth_correlation": Column("mouth r", "", 1, 2, "Correlation of the lips' opening with the truth's, by the landmarks."),
    "keypoint_error_px": Column("keypoints", "px", -1, 2, "Distance of the keypoints that our own M predicts from the truth's."),
    "eyes_mouth_error_px": Column("eyes, mouth", "px", -1, 2, "The same of the keypoints around eyes and mouth."),
    "rotation_error_deg": Column("head", "deg", -1, 2, "Angle between the head's rotation and the truth's, both by our own M."),
    "keypoint_mouth_correlation": Column("mouth r (M)", "", 1, 2, "Correlation of the mouth's opening with the truth's, by our M."),
    "face_found": Column("face found", "", 1, 3, "Share of the judged frames in which the detector finds a face."),
    # In time
    "flicker_255": Column("flicker", "1/255", 0, 2, "Change by frame where the truth stands still; the truth's own is best."),
    "step_255": Column("step", "1/255", 0, 2, "Change of the whole picture from frame to frame; the truth's own is best."),
    "jitter_px": Column("jitter", "px/frame²", 0, 2, "Second difference of M's keypoints; the truth's own is best."),
    "jitter_over_truth_px": Column(
        "jitter over the truth's", "px/frame²", 0, 2, "Jitter in addition to the truth's; below 0 it is smoother."
    ),
    "keypoint_step_px": Column("keypoint step", "px/frame", 0, 2, "Change of M's keypoints by frame; the truth's own is best."),
    "seam": Column("seam", "", -1, 2, "Change where two clips of the network meet, over the changes around it: 1 is no seam."),
    "keypoint_seam": Column("keypoint seam", "", -1, 2, "The same of M's keypoints."),
    "still_share": Column("still share", "", 0, 2, "Share of the picture that stands still, in which flicker is measured."),
    "red_255": Column("red", "1/255", 0, 1, "Mean of the channel."),
    "green_255": Column("green", "1/255", 0, 1, "Mean of the channel."),
    "blue_255": Column("blue", "1/255", 0, 1, "Mean of the channel."),
    "contrast_255": Column("contrast", "1/255", 0, 1, "Standard deviation of the colours; the truth's own is best."),
    "laplacian_variance": Column("Laplacian", "", 0, 5, "Variance of the luma's Laplacian: sharpness; the truth's own is best."),
}
