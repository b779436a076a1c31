"""GRPO with the advantage of future entropy, and with methods of entropy control."""

import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from maxent_onpolicy.estimators.advantages import AdvantageEstimate
from maxent_onpolicy.estimators.entropy import sampled_entropy_reward
from maxent_onpolicy.estimators.losses import explained_variance
from maxent_onpolicy.llm.advantages import critic_free_advantage, token_soft_advantage
from maxent_onpolicy.llm.batch import TokenBatch, turns_of
from maxent_onpolicy.llm.methods import compose
from maxent_onpolicy.llm.methods.entropy_advantage import EntropyAdvantage
from maxent_onpolicy.llm.trl.capture import HiddenStates, states_of_tokens
from maxent_onpolicy.llm.trl.config import EntropyAdvantageGRPOConfig
from maxent_onpolicy.llm.trl.critic import EntropyCritic
from maxent_onpolicy.llm.trl.statistics import (
    Pass,
    critic_advantage,
    looks_at_whole_batches,
    spread,
    valued_tokens,
)

_METHODS_FILE = "entropy_methods.json"
_PREFIX = "entropy_control_"  # of what is added to a batch: tensors [B, ...], which survive shuffling and splitting
_TURNS_LOGGED = 4


class EntropyAdvantageGRPOTrainer(GRPOTrainer):  # type: ignore[misc, unused-ignore]
    """TRL's ``GRPOTrainer`` whose policy follows ``A + τ·A_H``.

    ``A_H`` is the advantage of the discounted future entropy of the policy's own tokens; what an environment or a tool
    wrote is skipped. With ``tau=0`` and no methods nothing is changed: the loss is GRPO's.

    What the policy that sampled thought of its tokens is taken from a forward pass that GRPO makes anyway: that of the
    loss, as long as the policy is still the same, or TRL's own of the old log-probabilities. One more pass is needed
    only where a batch is split (``steps_per_generation > 1``) without the latter, and ``tau`` or a method looks at the
    whole of it before the loss of its first part.

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
        self.methods = compose(args.methods)
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
            width, rate = args.entropy_critic_width, args.entropy_critic_learning_rate
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(args.seed)  # TRL seeds each process differently; the critic starts the same on all
                critic = EntropyCritic(inner.config.get_text_config().hidden_size, width, rate)
            self.entropy_critic = critic.to(self.accelerator.device)
        self._rewards = torch.zeros(0)
        self._whole = args.tau > 0.0 or any(map(looks_at_whole_batches, self.methods.methods))
        self._listening = False
        self._sampled: Pass | None = None
        self._found: Pass | None = None
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
        self._sampled = None
        self._listening = self._active and self.model.training
        try:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        finally:
            self.generation_config.temperature = usual
            self._listening = False
        if self._active and self.model.training:
            if "pixel_values" in output:
                raise ValueError("`train_dataset` has images, which the entropy advantage and methods do not support")
            rows = torch.arange(len(self._rewards), device=self._rewards.device)
            output[_PREFIX + "group"], output[_PREFIX + "reward"] = rows // self.num_generations, self._rewards
            found = self._pass_of_sampling(output)
            if found is not None:
                self._look_at(output, found)
        return output

    def _pass_of_sampling(self, output: dict[str, Any]) -> Pass | None:
        """Return a pass of the policy that sampled; ``None`` if that of the loss will do."""
        found, self._sampled = self._sampled, None
        if "old_per_token_logps" in output:
            return found
        # TRL goes without old log-probabilities where no optimiser step lies between sampling and loss.
        if self.args.steps_per_generation == 1 or not self._whole:
            return None
        with torch.no_grad():
            return self._forward(self.model, output, self.args.per_device_train_batch_size)

    @torch.no_grad()
    def _look_at(self, output: dict[str, Any], sampled: Pass) -> None:
        """Add to a generated batch what was true of the policy that sampled it, and shape its advantages."""
        mask = _own_tokens(output)
        log_prob, entropy, turn = sampled.log_prob.detach(), sampled.entropy.detach(), turns_of(mask)
        target = torch.zeros_like(log_prob)
        added = {"log_prob": log_prob, "entropy": entropy, "turn": turn, "target": target}
        output.update({_PREFIX + name: value for name, value in added.items()})
        if not mask.any():  # nothing can be learnt from this batch, by GRPO neither; but other processes wait
            self._scale_critic(log_prob.new_zeros(0))
            return
        kept = mask.any(1)
        batch = TokenBatch(
            log_prob=log_prob[kept],
            old_log_prob=log_prob[kept],
            entropy=entropy[kept],
            old_entropy=entropy[kept],
            advantage=(output["advantages"].unsqueeze(1) * mask)[kept],
            mask=mask[kept],
            turn=turn[kept],
            group=output[_PREFIX + "group"][kept],
            reward=output[_PREFIX + "reward"][kept],
        )
        if self.args.tau > 0.0:
            hidden = torch.cat(sampled.hidden)[kept] if sampled.hidden else None
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

    def _hidden_states(self) -> AbstractContextManager[list[Tensor]]:
        """Keep the hidden states of forward passes within a block, if there is a critic to read them."""
        return nullcontext([]) if self._hidden is None else self._hidden.listening()

    def _entropy_advantage(self, batch: TokenBatch, hidden: Tensor | None, cut_off: Tensor) -> AdvantageEstimate:
        """Return ``A_H`` and the critic's targets; without a critic, these are the entropy to go."""
        args = self.args
        reward = sampled_entropy_reward(batch.log_prob) if args.entropy_reward == "sampled" else batch.entropy
        if self.entropy_critic is None or hidden is None:
            return critic_free_advantage(reward, batch.mask, batch.group, args.entropy_gamma)
        estimate, value = critic_advantage(args, reward, batch, self.entropy_critic, hidden, cut_off)
        valued = valued_tokens(args.entropy_discount, batch.turn)
        found = explained_variance(value[valued], estimate.target[valued])
        self._log("entropy_critic/explained_variance", float(found))
        self._scale_critic(estimate.target[valued])
        return estimate

    def _scale_critic(self, target: Tensor) -> None:
        """Let the critic's head take in the targets ``[N]`` of all processes, each of which must call this."""
        if self.entropy_critic is None:
            return
        padded = self.accelerator.pad_across_processes(target, dim=0, pad_index=torch.nan)
        found: Tensor = self.accelerator.gather(padded)
        found = found[found.isfinite()]
        if len(found):
            self.entropy_critic.head.update(found)

    def _cut_off(self, output: dict[str, Any]) -> Tensor:
        """Return which completions the limit of length has cut off, ``[B]`` bool.

        The last command of a game that has used up its turns may lack its end too, but the game is over.
        """
        lengths = output["completion_mask"].sum(1, keepdim=True)
        last = output["completion_ids"].gather(1, (lengths - 1).clamp(min=0)).squeeze(1)
        ends = torch.tensor(sorted(self.eos_token_ids), device=last.device)
        return (lengths.squeeze(1) >= self.args.max_completion_length) & ~torch.isin(last, ends)

    # --- in the loss: a part of the batch, several times ---

    def _forward(self, model: Any, inputs: dict[str, Any], batch_size: int | None = None) -> Pass:
        """Pass a batch through the model as GRPO's loss does."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        with self._hidden_states() as hidden:
            found = super()._get_per_token_logps_and_entropies(
                model,
                ids,
                attention,
                inputs["completion_ids"].shape[1],
                batch_size=batch_size,
                compute_entropy=True,
                compute_aux_loss=self.aux_loss_enabled,
                **{name: inputs[name] for name in ("token_type_ids", "mm_token_type_ids") if name in inputs},
            )
        return Pass(found[0], found[1], found[2], hidden)

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **keywords: Any) -> Any:
        if self._found is not None:  # the loss asks for the pass that was just made
            found, self._found = self._found, None
            return found[:3]
        if not self._listening:
            return super()._get_per_token_logps_and_entropies(*arguments, **keywords)
        # TRL's pass of the policy that sampled is the first, if there is one; a reference model's may follow.
        self._listening = False
        with self._hidden_states() as hidden:
            result = super()._get_per_token_logps_and_entropies(*arguments, **keywords | {"compute_entropy": True})
        self._sampled = Pass(result[0], result[1], result[2], hidden)
        return result

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor
        if _PREFIX + "reward" not in inputs:
            loss = super()._compute_loss(model, inputs)
            return loss
        found = self._forward(model, inputs)
        if _PREFIX + "log_prob" not in inputs:
            self._look_at(inputs, found)  # into the buffered batch, which later iterations see again
        # What follows is of this pass alone, and the buffered batch must stay as it is.
        current = dict(inputs)
        bounds = (self.epsilon_low, self.epsilon_high)
        try:
            self._control(current, found.log_prob, found.entropy)
            valued = valued_tokens(self.args.entropy_discount, current[_PREFIX + "turn"])
            self._train_critic(_own_tokens(current) & valued, current[_PREFIX + "target"], found.hidden)
            self._found = found
            loss = super()._compute_loss(model, current)
        finally:
            self._found = None
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
        self.epsilon_low, self.epsilon_high = spread(low, kept), spread(high, kept)
        self._penalty = self.methods.penalty(batch)
        self._log("entropy_control/effective_tokens", float((weight[mask] > 0).float().mean()))

    def _train_critic(self, mask: Tensor, target: Tensor, parts: list[Tensor]) -> None:
        if self.entropy_critic is None or not self.model.training:
            return
        hidden = states_of_tokens(torch.cat(parts), mask.shape[1])
        error = self.entropy_critic.accumulate(hidden[mask], target[mask])
        if mask.any():
            self._log("entropy_critic/loss", error)
        if self.accelerator.sync_gradients:
            average = partial(self.accelerator.reduce, reduction="mean")
            several = self.accelerator.num_processes > 1
            self.entropy_critic.step(self.args.entropy_critic_epochs, average if several else None)

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
