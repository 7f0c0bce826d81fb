"""What version 0.1 called its modules still imports, and says where every name lives now."""
# ruff: noqa: E501

import importlib
import subprocess
import sys

import pytest

from ptr_robot.moved_names import MOVED

# fmt: off
PUBLIC = {  # of version 0.1, by module
    "act": "Args episodes_of main",
    "ancestry": "TrainedEpisodes ancestors_of parent_and_ancestors trained_on",
    "branch": "branch is_branch run",
    "collect": "Args main parse_kinds",
    "contact_sheet": "SheetRow choose_camera choose_rows sheet_html sheet_png",
    "convert": "Args BAD_EPISODES Summary convert main",
    "convert_checkpoint": "Args convert main",
    "demo": "Args Stage main run_stages",
    "differences": "differences",
    "divergence": "Divergence Remedy last_sound_checkpoint remedies",
    "doctor": "Args diagnose main",
    "evaluate": "Args METRICS evaluate_checkpoint evaluation_key evaluation_path main saved_evaluation write_evaluation",
    "evaluation_data": "EvaluationData held_out run_folder spread told_kind",
    "export": "Args largest_difference main",
    "finetune": "finetune run",
    "flax_checkpoint": "flatten read_flax_checkpoint",
    "info": "Args instruction_set main processor",
    "inspect_store": "Args main",
    "launch": "StopRequest branch_command choose_kernels is_lost_contact joined leave num_local_ranks only_first_speaks pick_device prepare_process resume_command",
    "old_record": "upgraded",
    "precision": "encoder_dtype resolve_precision set_matmul_precision",
    "pretrain": "pretrain run",
    "progress": "Progress format_duration",
    "rates": "check_schedule first_rate over scaled with_rate",
    "recorder": "Recorder",
    "reference_parameters": "Sizes actor_state critic_state encoder_state head_state infer_sizes policy_state",
    "report.verb": "Args main",
    "resume": "Args check_new main read_record record_of",
    "robot_rollout": "Contender RemoteActing RobotTrials load_contenders remote_contender robot_options run_robot_trials",
    "rollout": "Args main rollout",
    "run_record": "EpisodeRecord RECORD_VERSION RunRecord SourceRecord recorded_sources versions",
    "select": "Args main rank select",
    "serve": "Args main make_infer metadata_of",
    "session": "Operator SessionResult run_session",
    "store_places": "StorePlaces",
    "store_summary": "DimensionRange StoreSummary TaskSummary summarize",
    "train": "Run open_run run_lock train write_record",
    "train_config": "Branch DataConfig FinetuneBranch FinetuneConfig LoopConfig Precision PretrainBranch PretrainConfig",
    "train_data": "Source choose_demos find_episodes first_few make_spec reopen select_prior select_target transitions_of",
    "train_frames": "Batches open_batches",
    "train_log": "RunLog check_wandb",
    "trained_on": "TrainedOn held_out_only",
    "trial_page": "decisions_late millisecond_ticks pooled_legs sections told_late",
    "trial_sheet": "TrialRecord TrialSheet",
    "video": "VideoWriter write_video",
}
# fmt: on


def test_the_table_is_whole_and_true():
    assert set(MOVED) == set(PUBLIC)


@pytest.mark.parametrize("old", list(PUBLIC))
def test_every_public_name_is_found_by_its_old_module_with_a_warning(old):
    module = importlib.import_module(f"ptr_robot.{old}")
    for name in PUBLIC[old].split():
        with pytest.warns(
            DeprecationWarning, match=rf"^ptr_robot\.{old}\.{name} is now ptr_robot\.\S+\.{name}; "
        ) as told:
            value = getattr(module, name)
        new = str(told[0].message).split(" is now ")[1].split(";")[0].rpartition(".")[0]
        assert value is getattr(importlib.import_module(new), name)
        assert name in getattr(importlib.import_module(new), "__all__", [name]), f"{name} is only imported there"
        assert told[0].filename == __file__


def test_names_that_never_were_are_errors():
    with pytest.raises(ImportError, match=r"cannot import name 'nonsense' from 'ptr_robot\.train'"):
        from ptr_robot.train import nonsense  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"ptr_robot\.nonsense"):
        importlib.import_module("ptr_robot.nonsense")


def test_the_program_uses_no_old_name():
    code = "import warnings, ptr_robot.cli\nwarnings.simplefilter('error')\nfor verb in ptr_robot.cli.VERBS:\n"
    code += "    __import__('ptr_robot.verbs.' + verb.replace('-', '_'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is now" not in done.stderr
