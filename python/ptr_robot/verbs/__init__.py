"""The verbs of ``ptr-fast``, one file each: options, one call, what is printed."""

__all__ = ["VERBS"]

VERBS = {
    "convert": "robot data of other formats -> a store",
    "edit": "merge, split, drop, rename and relabel episodes of stores, without rewriting frames",
    "repack": "a store of JPEG frames -> one whose frames a GPU decodes inside its step",
    "inspect": "what is in a store: tables and a contact sheet",
    "doctor": "traps in a store, and what to do about them",
    "collect": "demonstrations in simulated toy kitchens -> a store",
    "pretrain": "train a policy on broad data",
    "finetune": "train a policy further on a few demonstrations of a new task, mixed with the old data",
    "resume": "go on with a run that was stopped or killed",
    "evaluate": "offline metrics of a checkpoint on held-out demonstrations",
    "select": "rank the checkpoints of a run and pick one",
    "correlate": "which offline metrics tell the success of trials, over many runs",
    "act": "actions of a checkpoint on the frames of a stored episode",
    "rollout": "try a policy in a simulated kitchen, or on a robot in real time",
    "export-dataset": "a store -> a LeRobot data set",
    "export": "a checkpoint -> one ONNX file, from camera frame to the robot's units",
    "serve": "a checkpoint's actions over a websocket, in openpi's protocol",
    "push": "a checkpoint as a folder with a model card, and to the Hugging Face Hub where a token is given",
    "pull": "such a folder from the Hub or a disk, every file of it checked",
    "diagnose": "what went wrong in a training run, and what to do about it",
    "watch": "a local page that follows a run while it trains",
    "report": "one HTML page about runs, checkpoints and trials",
    "compare": "a grid of methods, data sets and seeds on the same trials, with intervals and a page",
    "demo": "the whole way in toy kitchens, from data to a table of success rates",
    "convert-checkpoint": "a checkpoint of the published JAX code -> one of ours",
    "completion": "a script with which bash, zsh or fish completes verbs, options and values",
    "info": "what was built, what runs where and why not; for bug reports",
}
