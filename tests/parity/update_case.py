"""A learner and its inputs, made from a golden update file; sizes come from the file alone.

Note "Truncation edges". The jittered image is cut to 8 bits, so a value within float32 noise of a whole number may be
cut to either side. Bytes must be equal everywhere else, and may differ by one there.
"""

from dataclasses import dataclass

import torch
from golden import Golden, note

from ptr_fast.config import AugmentConfig, CqlConfig, PolicySpec, TaskTable
from ptr_fast.kernels.augment import AugmentParams, JitterParams, reference
from ptr_fast.learners import CqlLearner, Draws
from ptr_fast.types import ActionSpec, Batch, CameraSpec, StateSpec
from ptr_robot.published.parameter_names import actor_state, critic_state, infer_sizes

JITTER_FIELDS = ("apply", "order", "brightness", "contrast", "saturation", "hue")
CROP_PADDING = 4
CRITIC, TARGET = ("critic_encoder", "critic_head"), ("target_encoder", "target_head")


# A mean, a spread or a difference is compared at the scale of what it summarises: it may be near zero by cancellation.
SCALES = {
    "cql_loss": ("value/cql_per_element",),
    "lse_q": ("value/lse_q",),
    "q_pi": ("value/q_pi",),
    "q_random": ("value/q_random",),
    "q_data": ("value/q_data",),
    "diff_pi": ("value/q_pi", "value/q_data"),
    "diff_rand": ("value/q_random", "value/q_data"),
    "target_actor_entropy": ("draw/next_log_probs",),
    "log_pis": ("draw/policy_log_probs",),
    "entropy": ("draw/actor_log_probs",),
    "actor_loss": ("draw/actor_log_probs", "value/actor_q_all"),
    "q_pi_in_actor": ("value/actor_q_all",),
    "mean_pi": ("value/policy/mean",),
    "std_pi": ("value/policy/std",),
}


@dataclass
class UpdateCase:
    """A golden file, a learner with its ``before`` parameters, and the inputs of its update."""

    golden: Golden
    learner: CqlLearner
    num_critics: int

    @property
    def encoder(self):
        return self.learner.config.encoder

    def states(self, stage: str) -> dict[str, dict[str, torch.Tensor]]:
        """Golden values under ``stage`` (``before``, ``grad``, ``after``) by net and our parameter name."""
        golden, states = self.golden, {}
        states["actor"] = actor_state(golden.group(f"{stage}/actor"), self.encoder)
        pairs = {"critic": CRITIC} if stage == "grad" else {"critic": CRITIC, "target_critic": TARGET}
        for net, (encoder, head) in pairs.items():
            states[net] = critic_state(
                golden.group(f"{stage}/{encoder}"), golden.group(f"{stage}/{head}"), self.encoder
            )
        states["temperature"] = {"log_temperature": golden.tensor(f"{stage}/temp/log_temp")}
        return states


def load_case(golden: Golden, dtype: torch.dtype = torch.float32) -> UpdateCase:
    """Build the learner of a file and load its parameters."""
    sizes = infer_sizes(golden.group("before/actor"))
    state_dim, num_slots = golden.arrays["batch/state"].shape[1], golden.arrays["batch/task_onehot"].shape[1]
    assert state_dim + num_slots == sizes.num_conditions
    height, width = golden.arrays["batch/images"].shape[1:3]
    head_bias = golden.arrays["before/critic_head/network/VmapStateActionValue_0/MLPActionSep_0/Dense_0/bias"]
    config = CqlConfig(
        encoder=sizes.encoder,
        hidden_dims=sizes.hidden_dims,
        num_critics=head_bias.shape[0],
        num_action_samples=golden.arrays["draw/next_eps"].shape[0] // len(golden.arrays["batch/actions"]),
        augment=AugmentConfig(crop_padding=CROP_PADDING),
    )
    learner = CqlLearner(config, make_spec(height, width, state_dim, sizes.action_dim, num_slots))
    case = UpdateCase(golden, learner, head_bias.shape[0])
    networks = learner.networks()
    for name, state in case.states("before").items():
        networks[name].load_state_dict(state, strict=True)
    for network in networks.values():
        network.to(dtype)
    return case


def make_spec(height: int, width: int, state_dim: int, action_dim: int, num_slots: int) -> PolicySpec:
    """A policy's surroundings of given sizes."""
    ones = (1.0,) * action_dim
    return PolicySpec(
        cameras=(CameraSpec(name="camera", height=height, width=width),),
        state=StateSpec(names=tuple(f"s{i}" for i in range(state_dim)), units=("1",) * state_dim),
        action=ActionSpec(
            names=tuple(f"a{i}" for i in range(action_dim)),
            units=("1",) * action_dim,
            low=tuple(-x for x in ones),
            high=ones,
        ),
        tasks=TaskTable(names=("task",), num_slots=num_slots),
        control_hz=5.0,
    )


def make_batch(golden: Golden, prefix: str = "batch", dtype: torch.dtype = torch.float32) -> Batch:
    """The batch of a file, images already augmented."""
    onehot, task_id = golden.tensor(f"{prefix}/task_onehot"), golden.tensor(f"{prefix}/task_id")
    assert torch.equal(onehot.argmax(dim=1), task_id)
    return Batch(
        images={"camera": golden.tensor(f"{prefix}/images")[:, None]},
        next_images={"camera": golden.tensor(f"{prefix}/next_images")[:, None]},
        task_id=task_id,
        **{name: golden.tensor(f"{prefix}/{name}").to(dtype) for name in ("rewards", "masks")},
        **{name: golden.tensor(f"{prefix}/{name}").to(dtype)[:, None] for name in ("state", "next_state", "actions")},
    )


def make_draws(golden: Golden, prefix: str = "draw", dtype: torch.dtype = torch.float32) -> Draws:
    """The noise of a file."""
    num_batch = golden.arrays[f"{prefix}/actor_eps"].shape[0]
    samples = {
        name: golden.tensor(f"{prefix}/{name}").to(dtype).unflatten(0, (num_batch, -1))
        for name in ("next_eps", "policy_eps", "random_actions")
    }
    return Draws(actor_eps=golden.tensor(f"{prefix}/actor_eps").to(dtype), **samples)


def make_augment(golden: Golden, which: str) -> AugmentParams:
    """Crop and, where the file has it, jitter of the images at s (``""``) or s' (``"next_"``)."""
    jitter = None
    if f"batch/{which}jitter/apply" in golden.arrays:
        jitter = JitterParams(**{name: golden.tensor(f"batch/{which}jitter/{name}") for name in JITTER_FIELDS})
    offsets = golden.tensor(f"batch/{which}crop_offsets")
    return AugmentParams(crop_offsets=offsets, crop_padding=CROP_PADDING, jitter=jitter)


def golden_values(terms) -> dict[str, torch.Tensor]:
    """Per-element terms of an update by their golden names (samples flattened to rows ``b * K + k``)."""
    return {
        "draw/next_actions": terms.next_actions_BKA.flatten(0, 1),
        "draw/next_log_probs": terms.next_log_prob_BK.flatten(),
        "draw/policy_actions": terms.policy_actions_BKA.flatten(0, 1),
        "draw/policy_log_probs": terms.policy_log_prob_BK.flatten(),
        "draw/actor_actions": terms.actor_actions_BA,
        "draw/actor_log_probs": terms.actor_log_prob_B,
        "value/policy/mean": terms.policy.mean_BA,
        "value/policy/std": terms.policy.std_BA,
        "value/policy_next/mean": terms.next_policy.mean_BA,
        "value/policy_next/std": terms.next_policy.std_BA,
        "value/embed": terms.embedding_BD,
        "value/embed_next_target": terms.next_target_embedding_BD,
        "value/target_q_all": terms.next_q_EBK.flatten(1),
        "value/next_q_max": terms.next_q_EBK.amin(dim=0).amax(dim=1),
        "value/target_q": terms.target_B,
        "value/q_data": terms.q_data_EB,
        "value/q_pi": terms.q_policy_EBK.flatten(1),
        "value/q_random": terms.q_random_EBK.flatten(1),
        "value/lse_q": terms.log_sum_exp_EB,
        "value/cql_per_element": terms.log_sum_exp_EB - terms.q_data_EB,
        "value/bellman_error_sq": (terms.q_data_EB - terms.target_B).square(),
        "value/actor_embed": terms.new_embedding_BD,
        "value/actor_q_all": terms.actor_q_EB,
    }


def check_bytes(golden, key: str, ours: torch.Tensor, images: torch.Tensor, jitter: JitterParams | None) -> None:
    """Compare 8-bit images bit for bit, but for the edges of the truncation, found in float64."""
    expected = golden.tensor(key)
    differs = ours != expected
    note(golden.name, "bytes that differ", key, float(differs.sum()), 2e-4 * ours.numel())
    if bool(differs.any()):
        assert jitter is not None, f"{golden.name} {key}: a crop differs"
        exact = reference.jitter(images.double() / 255.0, jitter) * 255.0
        assert float((exact - exact.round()).abs()[differs].max()) < 5e-4
        assert int((ours.int() - expected.int()).abs().max()) == 1
        assert int(differs.sum()) <= 2e-4 * ours.numel()


def scalar_scale(name: str, values: dict[str, torch.Tensor], golden_scalar) -> float:
    """Magnitude by which a scalar's error counts (see ``SCALES``); its own where it summarises nothing."""
    prefixes = [prefix for prefix in sorted(SCALES, key=len, reverse=True) if name.startswith(prefix)]
    if not prefixes:
        return abs(float(golden_scalar))
    return max(float(values[key].abs().max()) for key in SCALES[prefixes[0]])
