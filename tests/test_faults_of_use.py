"""What went wrong when people first drove the window, and the tests that saw it go.

41 kinds of fault and seven kinds of bad input were found in a real window. A kind is one fault in many places, so most
have several tests. This table is held against the tests there are; who removes or renames one finds the fault here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# number: what happened, and tests as "file::test" (names of test files are their own)
LOST = {
    1: ("a case was overwritten by another image", [
        "test_names_of_cases::test_another_image_gets_a_name_of_its_own",
        "test_names_of_cases::test_an_existing_name_for_another_image_is_asked_about",
        "test_raw_writer::test_a_replaced_case_is_kept_in_the_trash",
    ]),
    2: ("a new class in a reopened case could not be seen", [
        "test_label_colours::test_a_class_that_is_painted_later_is_seen_in_its_own_colour",
        "test_saving::test_names_and_colours_come_back_and_a_new_class_is_seen",
    ]),
    3: ("numbered objects became classes, from folders and from layers", [
        "test_import_dialog::test_numbered_objects_stay_objects",
        "test_object_cases::test_numbered_objects_begin_a_dataset_and_are_corrected",
        "test_cases_dock::test_numbered_objects_become_one_class_by_one_button",
        "test_import_masks::test_numbered_objects_are_no_classes",
    ]),
    4: ("several values of one class were named as one and stayed as they were", [
        "test_import_masks::test_several_values_of_one_class_are_written_as_one",
        "test_import_dialog::test_several_values_may_have_one_class",
    ]),
    5: ("a configuration added in the Plan dock spoiled its parent and what trained with it", [
        "test_preprocess::test_a_changed_patch_needs_no_preprocessing_and_shared_data_are_never_undone",
        "test_preprocess::test_data_of_other_plans_are_not_overwritten",
        "test_advice_in_windows::test_two_configurations_for_one_folder",
        "test_changes::test_another_voxel_size_is_preprocessed_into_a_folder_of_its_own",
    ]),
    6: ("a case of scribbles reopened inverted", [
        "test_nothing_is_lost::test_a_sparse_case_reopens_as_it_was_painted_and_is_saved_as_it_was",
    ]),
    7: (".nii lost its place, and labels over it were mirrored", [
        "test_saving::test_nii_lies_where_nii_gz_lies_and_its_labels_are_not_mirrored",
        "test_saving::test_a_nii_with_four_axes_opens_like_a_nii_gz",
    ]),
    8: ("Cancel in the last step of a job held its dock for ever", [
        "test_jobs_in_docks::test_a_job_cancelled_at_any_step_leaves_its_panel_idle_and_runs_again",
        "test_ends_of_runs::test_a_run_cancelled_in_any_step_leaves_the_dock_idle_and_runs_again",
        "test_compare_dock::test_a_comparison_cancelled_in_any_step_leaves_the_dock_idle_and_runs_again",
        "test_models_dock::test_an_installation_cancelled_in_any_step_leaves_all_or_nothing",
    ]),
    9: ("the job of a closed dock went on unseen, and its layer stayed partial", [
        "test_ends_of_runs::test_a_dock_closed_while_it_runs_finishes_its_layer",
        "test_jobs_in_docks::test_the_job_of_a_closed_dock_goes_on_and_napari_shows_and_cancels_it",
    ]),
    10: ("scale and shear were dropped when labels were saved", [
        "test_saving::test_a_scale_corrected_by_hand_is_saved_and_an_untouched_place_is_the_files_own",
        "test_saving::test_labels_lie_where_they_lay_when_they_were_saved",
        "test_saving::test_a_place_that_a_format_cannot_hold_is_refused",
    ]),
    11: ("a result whose layer was changed meanwhile was nowhere", [
        "test_ends_of_runs::test_a_result_whose_data_was_replaced_meanwhile_gets_a_layer_of_its_own",
        "test_window_reads_little::test_a_cancelled_run_that_a_script_changed_is_not_carried_on_with",
        "test_results_kept::test_what_somebody_erased_while_it_was_taken_out_does_not_come_back",
    ]),
}  # fmt: skip
WRONG = {
    12: ("channels from different places were stacked", [
        "test_layers_apart::test_layers_that_lie_elsewhere_are_told_apart",
        "test_layers_apart::test_a_layer_in_pixels_is_not_guessed_to_lie_over_one_in_mm",
        "test_layers_apart::test_a_mirrored_channel_is_turned_by_the_button_and_segmented",
    ]),
    13: ("a voxel size far from the model's was segmented", [
        "test_layers_apart::test_a_voxel_size_a_thousand_times_off_is_asked_about",
    ]),
    14: ("volumes kept their numbers after painting", [
        "test_volumes::test_painting_undoing_and_replacing_are_followed",
    ]),
    15: ("the recipe forgot region, voxel size and postprocessing", [
        "test_recipes::test_command_and_python_give_the_labels_of_the_dock",
        "test_recipes::test_they_do_so_in_fresh_processes",
        "test_recipes::test_the_words_name_what_the_form_said",
    ]),
    16: ("layers that lie apart, and differences themselves, were compared", [
        "test_layers_apart::test_compared_layers_that_lie_apart_are_refused_and_laid_over_each_other",
        "test_layers_apart::test_what_a_comparison_found_is_never_compared_itself",
        "test_compare_dock::test_the_layer_of_differences_is_not_offered",
        "test_differences_kept::test_differences_that_somebody_painted_in_moved_or_renamed_stay",
    ]),
    17: ("a typed voxel size overruled the next layer", [
        "test_layers_apart::test_a_typed_voxel_size_belongs_to_its_layer",
    ]),
    18: ("a class that nothing learns, stray values, and a class added late went without a word", [
        "test_contradictions::test_a_class_that_a_training_never_sees_is_named_with_the_fold",
        "test_verify::test_a_class_that_never_occurs",
        "test_needs_of_trainings::test_a_class_that_no_training_case_of_a_fold_has_is_told_before_hours_are_lost",
        "test_import_masks::test_a_few_voxels_of_another_value_do_not_become_a_class",
        "test_new_classes::test_a_new_class_is_absent_or_unknown_in_the_cases_there_are",
    ]),
    19: ("names of classes leaked into another dataset; 255 became a class beside the one it was", [
        "test_names_of_cases::test_names_of_classes_stay_with_their_dataset",
        "test_nothing_is_lost::test_another_value_for_the_only_class_is_that_class",
    ]),
    20: ("thumbnails and tables had other colours than the canvas", [
        "test_thumbnails::test_a_class_has_its_own_colour_in_the_picture_and_not_that_with_red_and_blue_swapped",
        "test_colours::test_overlays_and_thumbnails_show_the_colours_of_the_layers",
        "test_cases_dock::test_values_have_the_colours_of_the_canvas",
    ]),
    21: ("the time of a step was one sample in another layout, remembered for ever", [
        "test_cost::test_the_fastest_of_several_steps_in_the_layout_of_training_counts",
        "test_changes::test_costs_are_measured_once_and_remembered",
        "test_plan_dock::test_from_raw_data_to_preprocessed_data",
    ]),
}  # fmt: skip
DEAD_ENDS = {
    22: ("docks told to run shell commands", [
        "test_errors::test_what_only_a_shell_or_only_a_window_can_do_is_never_part_of_the_message_itself",
        "test_errors::test_an_error_says_what_to_do_in_a_shell_and_in_a_window",
        "test_advice_in_windows::test_data_of_other_plans_are_kept_by_what_the_plan_dock_can_do",
        "test_advice_in_windows::test_folds_that_cannot_be_trained_are_made_anew",
        "test_house::test_a_dock_words_every_error_for_a_window",
        "test_needs_of_trainings::test_a_case_that_changed_is_preprocessed_again_and_no_other",
    ]),
    23: ("nothing marked what is preprocessed; '-----' could be chosen", [
        "test_train_dock::test_what_is_to_be_preprocessed_is_marked_until_it_is",
        "test_first_steps::test_a_box_with_nothing_to_choose_says_so_and_one_with_choices_offers_only_these",
    ]),
    24: ("a dropped dataset reached no dock, and no dock showed the workspace", [
        "test_state::test_a_dataset_that_is_dropped_is_opened_where_it_lies",
        "test_state::test_a_dataset_outside_of_any_workspace_is_copied_in_if_wanted",
        "test_state::test_another_workspace_is_opened_in_all_docks",
    ]),
    25: ("an import could not add, ended with one bad case, took swapped folders, lost files and channels", [
        "test_import_dialog::test_cases_are_added_to_a_dataset",
        "test_import_dialog::test_a_case_is_left_out_by_its_tick_and_a_damaged_one_must_be",
        "test_import_dialog::test_the_same_folder_twice_and_a_missing_one_are_refused",
        "test_import_dialog::test_folders_that_are_swapped_are_noticed",
        "test_import_dialog::test_a_name_is_mended_while_it_is_typed",
        "test_import_dialog::test_pairs_values_and_what_is_left_out_are_shown_before_anything_is_written",
        "test_notes_of_imports::test_what_is_assumed_is_said_before_and_stays_in_the_dock",
        "test_pairs::test_two_files_of_one_name_are_not_chosen_between",
        "test_pairs::test_channels_are_found_from_any_last_word_that_all_cases_have",
        "test_import_channels::test_channels_of_other_names_are_asked_about_and_suffixes_answer",
    ]),
    26: ("classes and datasets could not be renamed, joined or removed", [
        "test_nothing_is_lost::test_classes_are_renamed_joined_and_removed_in_the_dock",
        "test_nothing_is_lost::test_a_dataset_is_renamed_removed_and_brought_back_in_the_dock",
    ]),
    27: ("napari asked which reader, and the one it proposed failed", [
        "test_preferred_reader::test_napari_asks_until_the_offer_is_taken",
        "test_preferred_reader::test_folders_of_datasets_and_models_are_opened_without_a_question_too",
        "test_preferred_reader::test_nobody_is_asked_where_no_other_plugin_claims_the_files",
    ]),
    28: ("a result of a time series could not be saved, and labels came back as an image", [
        "test_saving::test_a_time_series_comes_back_as_one_layer",
        "test_saving::test_names_and_colours_come_back_and_a_new_class_is_seen",
    ]),
    29: ("after a folder that is no model, the former one could not be chosen again", [
        "test_segment::test_a_wrong_folder_is_explained_in_the_dock",
    ]),
    30: ("in three dimensions a run failed before the mouse was over the canvas", [
        "test_ends_of_runs::test_in_three_dimensions_a_run_needs_no_mouse_over_the_canvas",
    ]),
    31: ("a damaged zip got a bare error of napari", [
        "test_preferred_reader::test_a_damaged_zip_reaches_the_models_dock",
    ]),
    32: ("a corrected result could not become a training case, and docks did not follow each other", [
        "test_names_of_cases::test_a_result_that_was_corrected_is_chosen_as_a_training_case",
        "test_next_buttons::test_from_two_folders_to_a_model_in_use_and_from_a_correction_to_a_better_one",
        "test_state::test_docks_follow_the_dataset_of_each_other",
        "test_state::test_lists_follow_files_that_another_dock_wrote",
    ]),
}  # fmt: skip
SAID = {
    33: ("the form stayed on the case before", [
        "test_names_of_cases::test_after_saving_the_dock_speaks_of_the_case_that_is_there",
        "test_names_of_cases::test_an_image_that_is_opened_beside_a_case_takes_its_place_in_the_form",
    ]),
    34: ("what a cancel left was said wrongly, and 'Done' was wiped", [
        "test_ends_of_runs::test_cancel_before_the_first_tile_leaves_no_empty_layer",
        "test_ends_of_runs::test_after_the_layer_was_deleted_nothing_is_said_to_be_kept",
        "test_ends_of_runs::test_what_was_said_stays_when_a_layer_comes",
    ]),
    35: ("a killed training said two things, and one whose folder is gone was waiting", [
        "test_follow::test_a_training_whose_folder_was_deleted_does_not_wait",
        "test_words_of_trainings::test_a_training_that_was_killed_says_how_to_continue_and_not_what_it_said_last",
    ]),
    36: ("three mean Dice were not explained, and one was missing without a reason", [
        "test_words_of_trainings::test_a_mean_says_what_it_is_taken_over_and_a_missing_one_says_why",
        "test_ensemble_dock::test_a_fold_without_a_dice_says_why",
    ]),
    37: ("'Finish soon' suggested more epochs than are left; a finished fold was trained again unasked", [
        "test_train_dock::test_finish_soon_suggests_no_more_epochs_than_are_left",
        "test_train_dock::test_a_training_survives_its_dock_and_shows_what_it_got_wrong",
        "test_train_dock::test_stop_resume_finish_and_discard",
    ]),
    38: ("'33 days per fold' came without advice, and an ensemble's time was a tenth of what it took", [
        "test_plan_dock::test_without_a_gpu_the_dock_begins_with_what_makes_sense_there",
        "test_ensemble_dock::test_before_the_first_ensemble_its_time_is_called_an_estimate_and_covers_every_member",
    ]),
    39: ("numbers, plurals, regions and names were said badly, and sizes with a comma refused", [
        "test_words_of_docks::test_one_is_singular_and_no_time_is_about_under_something",
        "test_open_images_again::test_one_of_many_is_said_in_the_singular",
        "test_words_of_docks::test_a_time_is_said_in_the_unit_that_fits",
        "test_words_of_docks::test_equal_names_are_told_apart",
        "test_changes::test_changes_that_cannot_be",
        "test_changes::test_a_patch_beyond_the_images_is_allowed_up_to_twice_their_size_and_many_times_are_whole_numbers",
        "test_forms::test_voxel_sizes_are_understood_as_people_type_them",
        "test_segment::test_a_drawn_rectangle_or_the_visible_field_limits_the_run",
        "test_models::test_a_truncated_checkpoint_is_named",
        "test_models::test_an_empty_checkpoint_is_called_empty",
    ]),
    40: ("docks were cut, and what ran was out of sight", [
        "test_layout::test_a_dock_that_is_opened_empty_is_not_cut",
        "test_layout::test_docks_that_show_plans_and_trainings_are_not_cut",
        "test_layout::test_docks_are_tabs_of_each_other_and_each_is_there_once",
        "test_layout_states::test_ensemble",
        "test_plan_dock::test_a_tab_is_as_high_as_what_it_shows_and_says_why_there_is_nothing_to_see",
        "test_names_of_trainings::test_no_line_of_a_usual_name_is_cut_and_long_ones_keep_their_end",
        "test_curves::test_the_legend_over_each_plot_names_every_curve_in_its_colour",
    ]),
    41: ("the keyboard stayed in tables, inputs had no names, and an arrow was black on dark", [
        "test_layout::test_tab_goes_through_a_dock_and_leaves_it",
        "test_tab_order::test_tab_goes_down_a_dock_that_shows_a_dataset_and_its_models",
        "test_tab_order::test_tab_goes_down_the_segment_dock_when_a_model_is_chosen",
        "test_ends_of_runs::test_every_input_has_a_name_and_tab_leaves_the_tables",
        "test_folded_parts::test_the_arrow_is_text_which_every_theme_colours",
    ]),
}  # fmt: skip
BAD_INPUT = {
    "folders swapped": [
        "test_import_dialog::test_folders_that_are_swapped_are_noticed",
        "test_bad_folders::test_folders_that_turn_out_not_to_fit_are_said_and_the_dock_goes_on",
    ],
    "the same twice": [
        "test_import_dialog::test_the_same_folder_twice_and_a_missing_one_are_refused",
        "test_bad_folders::test_folders_that_cannot_be_compared_are_refused_before",
        "test_bad_folders::test_segmenting_a_folder_into_itself_is_refused",
    ],
    "mixed sizes": [
        "test_import_dialog::test_masks_of_other_sizes_are_named_and_left_out_by_their_ticks",
        "test_bad_folders::test_folders_that_turn_out_not_to_fit_are_said_and_the_dock_goes_on",
        "test_cases_dock::test_layers_that_do_not_fit_are_refused",
    ],
    "missing masks": [
        "test_import_dialog::test_pairs_values_and_what_is_left_out_are_shown_before_anything_is_written",
        "test_bad_folders::test_folders_that_turn_out_not_to_fit_are_said_and_the_dock_goes_on",
    ],
    "a workspace on a stick that is pulled out": [
        "test_workspace_gone::test_a_workspace_that_is_gone_is_said_and_found_again",
        "test_workspace_gone::test_whatever_is_pressed_while_the_workspace_is_gone_is_answered_and_writes_nothing_there",
        "test_workspace_gone::test_a_job_during_which_the_disk_is_pulled_out_ends_in_a_sentence_and_runs_again",
    ],
    "a dataset changed by another program": [
        "test_changed_elsewhere::test_what_another_program_added_is_there_when_somebody_comes_back",
        "test_changed_elsewhere::test_what_another_program_removed_or_spoiled_is_said",
        "test_nothing_is_lost::test_labels_that_somebody_else_changed_meanwhile_are_asked_about",
    ],
    "two windows on one dataset": [
        "test_changed_elsewhere::test_two_windows_see_what_the_other_did",
        "test_changed_elsewhere::test_what_another_window_is_doing_is_waited_for",
        "test_two_windows::test_a_training_of_one_window_is_paused_resumed_and_discarded_in_the_other",
        "test_two_windows::test_a_model_that_one_window_removes_is_gone_in_the_other_and_comes_back",
        "test_two_windows::test_both_windows_label_for_one_dataset",
    ],
}
FAULTS = {**LOST, **WRONG, **DEAD_ENDS, **SAID}


def test_no_kind_of_fault_is_left_out():
    assert list(FAULTS) == list(range(1, 42))
    assert all(tests for _, tests in FAULTS.values())
    assert len(BAD_INPUT) == 7 and all(BAD_INPUT.values())


@pytest.fixture(scope="module")
def there():
    """Every test there is, as the table names it."""
    name = re.compile(r"^def (test_\w+)\(", re.MULTILINE)
    paths = TESTS.rglob("test_*.py")
    return {f"{path.stem}::{test}" for path in paths for test in name.findall(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("number", FAULTS)
def test_what_saw_a_fault_go_is_still_tested(there, number):
    assert [test for test in FAULTS[number][1] if test not in there] == []


@pytest.mark.parametrize("what", BAD_INPUT)
def test_bad_input_is_still_tested(there, what):
    assert [test for test in BAD_INPUT[what] if test not in there] == []
