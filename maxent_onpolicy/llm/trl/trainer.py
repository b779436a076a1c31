"""GRPO with the advantage of future entropy, and with methods of entropy control."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from maxent_onpolicy.estimators.advantages import AdvantageEstimate
from maxent_onpolicy.estimators.entropy import sampled_entropy_reward
from maxent_onpolicy.estimators.losses import explained_variance
from maxent_onpolicy.llm.advantages import (
    entropy_to_go,
    group_baseline,
    token_entropy_advantage,
    token_position,
    token_soft_advantage,
)
from maxent_onpolicy.llm.batch import TokenBatch, turns_of
from maxent_onpolicy.llm.methods import Compose, make_method
from maxent_onpolicy.llm.methods.entropy_advantage import EntropyAdvantage
from maxent_onpolicy.llm.trl.capture import HiddenStates, states_of_tokens
from maxent_onpolicy.llm.trl.config import EntropyAdvantageGRPOConfig
from maxent_onpolicy.llm.trl.critic import EntropyCritic
from maxent_onpolicy.llm.turns import turn_discounted_entropy_advantage

_METHODS_FILE = "entropy_methods.json"
_PREFIX = "entropy_control_"  # of what is added to a batch: tensors [B, ...], which survive shuffling and splitting
_TURNS_LOGGED = 4


class EntropyAdvantageGRPOTrainer(GRPOTrainer):  # type: ignore[misc, unused-ignore]
    """TRL's ``GRPOTrainer`` whose policy follows ``A + τ·A_H``.

    ``A_H`` is the advantage of the discounted future entropy of the policy's own tokens; what an environment or a tool
    wrote is skipped. With ``tau=0`` and no methods nothing is changed: the loss is GRPO's.

    Arguments are ``GRPOTrainer``'s; ``args`` is an :class:`EntropyAdvantageGRPOConfig`.

    Attributes:
        entropy_critic: the value head, or ``None`` if nothing needs it.
        methods: of entropy control, composed.

    Raises:
        ValueError: if a method is unknown, methods contradict each other, or the loss takes no advantage a token.
    """

    args: EntropyAdvantageGRPOConfig
    model: Any
    num_generations: int

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        args = arguments[2] if len(arguments) > 2 else keywords.get("args")
        if not isinstance(args, EntropyAdvantageGRPOConfig):
            raise ValueError(f"`args` must be an EntropyAdvantageGRPOConfig, got {type(args).__name__}")
        self.methods = Compose([_method(given) for given in args.methods])
        if any(isinstance(each, EntropyAdvantage) for each in self.methods.methods):
            raise ValueError("`methods`: give `tau` in place of entropy_advantage; the trainer then makes its critic")
        super().__init__(*arguments, **keywords)
        self._active = args.tau > 0.0 or bool(args.methods)
        if self._active and self.importance_sampling_level != "token":
            raise ValueError(
                f"`importance_sampling_level={self.importance_sampling_level!r}` has one ratio a completion, and the "
                "entropy advantage one number a token; use 'token'"
            )
        self.entropy_critic: EntropyCritic | None = None
        self._hidden: HiddenStates | None = None
        if args.tau > 0.0 and args.entropy_estimator == "critic":
            inner = self.accelerator.unwrap_model(self.model)
            self._hidden = HiddenStates(inner)
            critic = EntropyCritic(
                inner.config.get_text_config().hidden_size, args.entropy_critic_width, args.entropy_critic_learning_rate
            )
            self.entropy_critic = critic.to(self.accelerator.device)
        self._rewards = torch.zeros(0)
        self._current: dict[str, Any] | None = None
        self._penalty: Tensor | None = None

    # --- at generation: the whole batch ---

    def _calculate_rewards(self, inputs: Any, prompts: Any, *rest: Any) -> Tensor:
        found: Tensor = super()._calculate_rewards(inputs, prompts, *rest)
        first = self.accelerator.process_index * len(prompts)
        weights = self.reward_weights.to(found.device)
        self._rewards = (found * weights).nansum(1)[first : first + len(prompts)]
        return found

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        temperature = self.methods.temperature()
        usual = self.generation_config.temperature
        if temperature is not None:
            self.generation_config.temperature = temperature
        try:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        finally:
            self.generation_config.temperature = usual
        if self._active and self.model.training:
            self._look_at(output)
        return output

    @torch.no_grad()
    def _look_at(self, output: dict[str, Any]) -> None:
        """Add to a generated batch what was true of the policy that sampled it, and shape its advantages."""
        if "pixel_values" in output:
            raise ValueError("`train_dataset` has images, which the entropy advantage and methods do not support")
        mask = _own_tokens(output)
        tokens = mask.shape[1]
        if not mask.any():
            return  # nothing can be learnt from this batch, by GRPO neither
        with self._hidden_states() as parts:
            ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
            attention = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)
            log_prob, entropy, _ = GRPOTrainer._get_per_token_logps_and_entropies(
                self,
                self.model,
                ids,
                attention,
                tokens,
                batch_size=self.args.per_device_train_batch_size,
                compute_entropy=True,
            )
        rows = torch.arange(len(mask), device=mask.device)
        kept = mask.any(1)
        turn = turns_of(mask)
        batch = TokenBatch(
            log_prob=log_prob[kept],
            old_log_prob=log_prob[kept],
            entropy=entropy[kept],
            old_entropy=entropy[kept],
            advantage=(output["advantages"].unsqueeze(1) * mask)[kept],
            mask=mask[kept],
            turn=turn[kept],
            group=(rows // self.num_generations)[kept],
            reward=self._rewards[kept],
        )
        target = torch.zeros_like(log_prob)
        if self.args.tau > 0.0:
            hidden = torch.cat(parts)[kept] if parts else None
            estimate = self._entropy_advantage(batch, hidden, self._cut_off(output)[kept])
            target[kept] = estimate.target
            advantage = token_soft_advantage(
                batch.advantage, estimate.advantage, batch.mask, self.args.tau, scale=self.args.entropy_scale
            )
            batch = batch.replaced(advantage=advantage)
            own = estimate.advantage[batch.mask]
            self._log("entropy_advantage/mean", float(own.mean()))
            self._log("entropy_advantage/std", float(own.std(correction=0)))
        self.methods.observe(batch)
        trained = torch.zeros_like(kept)
        trained[kept] = self.methods.keep(batch)
        shaped = torch.zeros_like(log_prob)
        shaped[kept] = self.methods.only("batch").shape(batch)
        self._note_turns(batch)
        output["advantages"] = shaped
        if not trained[kept].all():
            output["tool_mask"] = (mask & trained.unsqueeze(1)).long()
        added = {"log_prob": log_prob, "entropy": entropy, "turn": turn, "target": target, "reward": self._rewards}
        added["group"] = rows // self.num_generations
        output.update({_PREFIX + name: value for name, value in added.items()})

    def _hidden_states(self) -> AbstractContextManager[list[Tensor]]:
        """Keep the hidden states of forward passes within a block, if there is a critic to read them."""
        return nullcontext([]) if self._hidden is None else self._hidden.listening()

    def _entropy_advantage(self, batch: TokenBatch, hidden: Tensor | None, cut_off: Tensor) -> AdvantageEstimate:
        """Return ``A_H`` and the critic's targets; without a critic, these are the entropy to go."""
        args, mask = self.args, batch.mask
        reward = sampled_entropy_reward(batch.log_prob) if args.entropy_reward == "sampled" else batch.entropy
        if self.entropy_critic is None or hidden is None:
            to_go = entropy_to_go(reward, mask, args.entropy_gamma)
            return AdvantageEstimate(to_go - group_baseline(to_go, token_position(mask), batch.group), to_go)
        tokens = mask.shape[1]
        # Where a completion was cut off, its future goes on after its last token.
        places = torch.arange(tokens, device=mask.device)
        last = hidden[:, -tokens:][torch.arange(len(mask), device=mask.device), (mask * places).argmax(1)]
        value = self.entropy_critic(states_of_tokens(hidden, tokens))
        by_turn = args.entropy_discount == "turn"
        estimate = (turn_discounted_entropy_advantage if by_turn else token_entropy_advantage)(
            reward,
            value,
            batch.turn if by_turn else mask,
            args.entropy_gamma,
            args.entropy_gae_lambda,
            truncated=cut_off,
            last_value=self.entropy_critic(last),
        )
        found = explained_variance(value[mask], estimate.target[mask])
        self._log("entropy_critic/explained_variance", float(found))
        self.entropy_critic.head.update(estimate.target[mask])
        return estimate

    def _cut_off(self, output: dict[str, Any]) -> Tensor:
        """Return which completions end without an end of sequence, ``[B]`` bool."""
        lengths = output["completion_mask"].sum(1, keepdim=True)
        last = output["completion_ids"].gather(1, (lengths - 1).clamp(min=0)).squeeze(1)
        ends = torch.tensor(sorted(self.eos_token_ids), device=last.device)
        return ~torch.isin(last, ends)

    # --- in the loss: a part of the batch, several times ---

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **keywords: Any) -> Any:
        current = self._current
        if current is None:
            return super()._get_per_token_logps_and_entropies(*arguments, **keywords)
        with self._hidden_states() as parts:
            found = super()._get_per_token_logps_and_entropies(*arguments, **keywords)
        self._current = None  # a reference model's pass, if one follows, is none of ours
        self._control(current, found[0], found[1])
        self._train_critic(current, parts)
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if _PREFIX + "log_prob" not in inputs:
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss
        # Advantages and clip ranges are read after the forward pass, in which they are set. The buffered batch is used
        # again in later iterations, and must stay as it is.
        self._current = dict(inputs)
        bounds = (self.epsilon_low, self.epsilon_high)
        try:
            loss = super()._compute_loss(model, self._current)
        finally:
            self._current = None
            self.epsilon_low, self.epsilon_high = bounds
        if self._penalty is not None:
            steps = self.current_gradient_accumulation_steps if self.model.training else 1
            loss = loss + self._penalty / steps
            self._penalty = None
        return loss

    def _control(self, inputs: dict[str, Any], log_prob: Tensor, entropy: Tensor) -> None:
        """Let the methods weigh tokens, set the clip range, and add to the loss."""
        mask = _own_tokens(inputs)
        kept = mask.any(1)
        if not kept.any():
            return
        batch = TokenBatch(
            log_prob=log_prob[kept],
            old_log_prob=inputs[_PREFIX + "log_prob"][kept],
            entropy=entropy[kept],
            old_entropy=inputs[_PREFIX + "entropy"][kept],
            advantage=inputs["advantages"][kept],
            mask=mask[kept],
            turn=inputs[_PREFIX + "turn"][kept],
            group=inputs[_PREFIX + "group"][kept],
            reward=inputs[_PREFIX + "reward"][kept],
        )
        batch = batch.replaced(advantage=self.methods.only("update").shape(batch))
        weight = torch.zeros_like(inputs["advantages"])
        weight[kept] = self.methods.weight(batch)
        advantage = torch.zeros_like(inputs["advantages"])
        advantage[kept] = batch.advantage
        inputs["advantages"] = advantage * weight
        low, high = self.methods.bounds(batch, self.epsilon_low, self.epsilon_high)
        self.epsilon_low, self.epsilon_high = _spread(low, kept), _spread(high, kept)
        self._penalty = self.methods.penalty(batch)
        self._log("entropy_control/effective_tokens", float((weight[mask] > 0).float().mean()))

    def _train_critic(self, inputs: dict[str, Any], parts: list[Tensor]) -> None:
        if self.entropy_critic is None or not self.model.training:
            return
        mask = _own_tokens(inputs)
        hidden = states_of_tokens(torch.cat(parts), mask.shape[1])
        share = 1.0 / self.current_gradient_accumulation_steps
        error = self.entropy_critic.accumulate(hidden[mask], inputs[_PREFIX + "target"][mask], share)
        self._log("entropy_critic/loss", error)
        if self.accelerator.sync_gradients:
            several = self.accelerator.num_processes > 1
            self.entropy_critic.step((lambda grad: self.accelerator.reduce(grad, "mean")) if several else None)

    # --- metrics and checkpoints ---

    def _note_turns(self, batch: TokenBatch) -> None:
        for number in range(min(_TURNS_LOGGED, int(batch.turn.max()) + 1)):
            here = batch.turn == number
            if here.any():
                self._log(f"entropy/turn_{number}", float(batch.entropy[here].mean()))

    def _log(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}")
            if self.entropy_critic is not None:
                self.entropy_critic.save(folder)
            (folder / _METHODS_FILE).write_text(json.dumps(self.methods.state_dict()), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if self.entropy_critic is not None:
            self.entropy_critic.restore(Path(checkpoint))
        state = Path(checkpoint, _METHODS_FILE)
        if state.is_file():
            self.methods.load_state_dict(json.loads(state.read_text(encoding="utf-8")))


def _own_tokens(inputs: dict[str, Any]) -> Tensor:
    """Return the mask of the policy's own tokens, ``[B, T]`` bool."""
    mask: Tensor = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()


def _spread(bound: Any, kept: Tensor) -> Any:
    """Return a bound for all completions from one for those with tokens of their own."""
    if not isinstance(bound, Tensor) or bound.dim() == 0 or bound.shape[0] == 1:
        return bound
    found = bound.new_zeros((len(kept), *bound.shape[1:]))
    found[kept] = bound
    return found


def _method(given: Any) -> Any:
    if isinstance(given, str):
        return make_method(given)
    if isinstance(given, dict) and "name" in given:
        return make_method(given["name"], **{key: value for key, value in given.items() if key != "name"})
    return given
