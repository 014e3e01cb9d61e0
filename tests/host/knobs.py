"""Every input that a user can set or leave open, and the test that fails where it does nothing. What the edits of a motion do
to the motion itself is tested in tests/test_motion_edit.py.
"""

# node -> input -> test, below tests/
SHOWN = {
    "RealPortraitLoadModel": {
        "weights": "host/test_nodes.py::test_the_chosen_weights_are_loaded_in_the_chosen_precision",
        "weight_dtype": "host/test_nodes.py::test_the_chosen_weights_are_loaded_in_the_chosen_precision",
    },
    "RealPortraitLoadVid2Vid": {
        "weights": "host/test_nodes.py::test_keypoints_of_another_vid2vid",
        "weight_dtype": "host/test_render.py::test_the_precision_of_the_weights",
    },
    "RealPortraitExtractKeypoints": {
        "portrait_face": "host/test_nodes.py::test_the_chosen_face_is_animated_and_followed",
        "driver_face": "host/test_nodes.py::test_the_chosen_face_is_animated_and_followed",
        "missing_face": "host/test_nodes.py::test_what_is_done_where_the_face_is_missing",
        "portrait_box": "host/test_nodes.py::test_a_box_says_where_the_face_is",
        "driver_box": "host/test_nodes.py::test_a_box_says_where_the_face_is",
        "portrait_boxes": "host/test_given_faces.py::test_given_boxes_say_where_the_face_is",
        "driving_boxes": "host/test_given_faces.py::test_given_boxes_say_where_the_face_is",
    },
    "RealPortraitEditMotion": {
        "head_size": "host/test_motion_nodes.py::test_every_edit_changes_the_maps",
        "smooth_head": "host/test_motion_nodes.py::test_every_edit_changes_the_maps",
        "smooth_expression": "host/test_motion_nodes.py::test_every_edit_changes_the_maps",
        "smooth_track": "host/test_motion_nodes.py::test_the_smoothed_track_moves_the_mask",
        "mirror": "host/test_motion_nodes.py::test_every_edit_changes_the_maps",
    },
    "RealPortraitLoadStitching": {"weights": "host/test_stitch.py::test_any_file_that_holds_them_is_recognised_by_its_keys"},
    "RealPortraitStitch": {
        name: "host/test_stitch.py::test_every_wish_changes_the_maps"
        for name in ("hold_shoulders", "eyes", "portrait_eyes", "lips", "portrait_lips")
    },
    "RealPortraitMotionMaps": {
        "mode": "host/test_motion_nodes.py::test_modes",
        "pose_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
        "expression_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
        "neutral_frame": "host/test_motion_nodes.py::test_the_neutral_frame_is_chosen_and_reported",
        "framing": "host/test_motion_nodes.py::test_framing",
        "eye_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
        "mouth_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
        "rotation_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
        "translation_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
        "scale_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
        "first_frame": "host/test_motion_nodes.py::test_a_range_of_frames",
        "frames": "host/test_motion_nodes.py::test_a_range_of_frames",
        "rest_gain": "host/test_motion_nodes.py::test_a_gain_of_nothing_keeps_the_portraits_part",
    },
    "RealPortraitConditioning": {
        "portrait": "host/test_nodes.py::test_the_motion_brings_its_portrait",
        "start_frame": "host/test_nodes.py::test_a_clip_is_of_the_frames_that_were_asked_for",
        "frames": "host/test_nodes.py::test_a_clip_is_of_the_frames_that_were_asked_for",
        "strength": "host/test_nodes.py::test_the_strength_of_a_clip_steers_it",
    },
    "RealPortraitSampler": {
        "portrait": "host/test_nodes.py::test_the_motion_brings_its_portrait",
        "seed": "host/test_nodes.py::test_every_setting_of_the_sampler_changes_the_frames",
        "steps": "host/test_nodes.py::test_progress_counts_frames_and_steps",
        "sampler_name": "host/test_nodes.py::test_our_sampler_is_the_stock_sampler_clip_by_clip",
        "scheduler": "host/test_nodes.py::test_every_setting_of_the_sampler_changes_the_frames",
        "strength": "host/test_nodes.py::test_motion_reaches_the_frames",
        "speed": "host/test_nodes.py::test_speed_chooses_steps_sampler_and_caching",
        "guidance": "host/test_nodes.py::test_every_setting_of_the_sampler_changes_the_frames",
    },
    "RealPortraitContinueClip": {
        "start_frame": "host/test_nodes.py::test_a_clip_is_of_the_frames_that_were_asked_for",
        "frames": "host/test_nodes.py::test_a_clip_is_of_the_frames_that_were_asked_for",
        "overlap": "host/test_nodes.py::test_a_clip_is_of_the_frames_that_were_asked_for",
    },
    "RealPortraitLoadPortrait": {"image": "host/test_media.py::test_a_portrait_is_what_load_image_gives"},
    "RealPortraitLoadDrivingVideo": {
        "file": "host/test_video_nodes.py::test_a_file_of_the_input_folder",
        "start": "host/test_video_nodes.py::test_a_file_of_the_input_folder",
        "start_in": "host/test_video_nodes.py::test_a_video_in_memory_and_as_bytes",
        "frames": "host/test_video_nodes.py::test_a_file_of_the_input_folder",
        "stride": "host/test_video_nodes.py::test_a_file_of_the_input_folder",
        "fps": "host/test_video_nodes.py::test_another_rate",
        "longest_side": "host/test_video_nodes.py::test_a_file_of_the_input_folder",
        "video": "host/test_video_nodes.py::test_a_file_of_the_input_folder",
    },
    "RealPortraitStreamDrivingVideo": dict.fromkeys(
        ("file", "start", "start_in", "frames", "stride", "fps", "longest_side", "video"),
        "host/test_stream_node.py::test_frames_and_sound_are_those_of_load_driving_video",
    ),
    "RealPortraitPasteBack": {
        "picture": "host/test_video_nodes.py::test_pasting_back_keeps_the_picture_outside",
        "feather": "host/test_video_nodes.py::test_the_feather_is_a_share_of_the_side",
        "length": "host/test_video_nodes.py::test_pasting_back_keeps_the_picture_outside",
        "mask": "host/test_video_nodes.py::test_pasting_back_keeps_the_picture_outside",
        "even_size": "host/test_video_nodes.py::test_an_even_size_can_be_saved",
        "driver_framing": "host/test_video_nodes.py::test_the_result_in_the_drivers_framing",
    },
    "RealPortraitRenderVid2Vid": {
        "result": "host/test_render.py::test_the_bare_crop_is_the_generators_picture",
        "portrait": "host/test_render.py::test_another_picture_under_the_face",
        "even_size": "host/test_render.py::test_an_even_size_can_be_saved",
    },
    "RealPortraitLive": {
        "reset": "host/test_live_node.py::test_state_is_kept_from_run_to_run",
        "result": "host/test_live_node.py::test_settings_of_each_run",
        "detect_every": "host/test_live_node.py::test_settings_of_each_run",
        "stitching": "host/test_live_node.py::test_stitching",
    },
    "RealPortraitInspect": {
        "portrait": "host/test_video_nodes.py::test_inspecting_a_run",
        "most": "host/test_video_nodes.py::test_inspecting_a_run",
        "clip_frames": "host/test_video_nodes.py::test_inspecting_a_run",
        "frames": "host/test_video_nodes.py::test_inspecting_a_run",
        "vid2vid": "host/test_video_nodes.py::test_inspecting_a_run",
    },
    "RealPortraitJudge": {
        "truth": "host/test_judge.py::test_the_truth_adds_its_figures",
        "clip_frames": "host/test_judge.py::test_seams_and_drift_are_those_of_the_clips",
    },
    "RealPortraitSaveMotion": {
        "fps": "host/test_motion_nodes.py::test_a_saved_motion_drives_as_the_video_did",
        "filename_prefix": "host/test_motion_nodes.py::test_files_are_numbered_and_none_is_overwritten",
    },
    "RealPortraitLoadMotion": {
        "file": "host/test_motion_nodes.py::test_a_saved_motion_drives_as_the_video_did",
        "portrait_face": "host/test_motion_nodes.py::test_the_chosen_face_or_box_of_the_portrait",
        "portrait_box": "host/test_motion_nodes.py::test_the_chosen_face_or_box_of_the_portrait",
    },
    "RealPortraitAnimate": {
        "weights": "host/test_animate.py::test_every_widget_reaches_its_node",
        "vid2vid_weights": "host/test_animate.py::test_every_widget_reaches_its_node",
        "seed": "host/test_animate.py::test_every_widget_reaches_its_node",
        "result": "host/test_animate.py::test_the_square_alone_is_not_pasted",
        "frames": "host/test_animate.py::test_every_widget_reaches_its_node",
        "pose_gain": "host/test_animate.py::test_every_widget_reaches_its_node",
        "expression_gain": "host/test_animate.py::test_every_widget_reaches_its_node",
        "framing": "host/test_animate.py::test_every_widget_reaches_its_node",
        "vae": "host/test_animate.py::test_a_connected_vae_takes_the_place_of_the_bundled_one",
    },
    "RealPortraitSigmas": {"steps": "host/test_iddpm.py::test_sigmas_are_those_of_iddpm"},
    "RealPortraitIDDPMSampler": {},
    "RealPortraitEditExpression": {
        **{
            name: "host/test_expression.py::test_every_slider_moves_the_keypoints_and_the_picture"
            for name in ("yaw", "pitch", "roll", "smile", "mouth", "eyes", "gaze_x", "gaze_y")
        },
        "live_preview": "host/test_expression.py::test_the_node_shows_its_picture_while_it_is_to",
        "portrait_face": "host/test_expression.py::test_the_face_is_chosen_as_elsewhere",
        "stitching": "host/test_expression.py::test_the_networks_open_eyes_and_mouth",
        "portrait_box": "host/test_expression.py::test_the_face_is_chosen_as_elsewhere",
    },
    "RealPortraitAnimateLong": {
        **{
            name: "host/test_long_nodes.py::test_every_setting_changes_the_frames"
            for name in (
                "seed",
                "steps",
                "sampler_name",
                "scheduler",
                "speed",
                "strength",
                "guidance",
                "pose_gain",
                "expression_gain",
                "framing",
                "neutral_frame",
                "overlap",
            )
        },
        "tail_window": "host/test_long_nodes.py::test_the_tail_is_chosen_in_a_window",
        "result": "host/test_long_nodes.py::test_the_frames_are_those_of_the_graph",
        "model": "host/test_long_nodes.py::test_the_frames_are_those_of_the_graph",
        "vae": "host/test_long_nodes.py::test_the_frames_are_those_of_the_graph",
        "keypoints": "host/test_long_nodes.py::test_the_frames_are_those_of_the_graph",
        "state": "host/test_long_nodes.py::test_another_driving_video_begins_with_the_states_last_frame",
    },
    "RealPortraitSaveState": {"filename_prefix": "host/test_long_nodes.py::test_a_state_is_saved_and_found"},
    "RealPortraitLoadState": {"file": "host/test_long_nodes.py::test_a_state_is_saved_and_found"},
}
