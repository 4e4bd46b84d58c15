"""What `vivace compress` says of a file that it has made: for people, and as one JSON object."""

import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vivace.compress.save import SavedModel


def figures_of(saved: "SavedModel") -> dict[str, object]:
    """Everything that is known of the file, by names that stay."""
    tensors = [
        {
            "name": outcome.plan.name,
            "format": outcome.plan.format,
            "kernel": outcome.plan.kernel,
            "bands": [{"rows": band.shape[0], "format": band.format} for band in outcome.plan.bands],
            "bytes": outcome.plan.num_bytes,
            "relative_error": outcome.relative_error,
        }
        for outcome in saved.model.outcomes
    ]
    check, tuning = saved.verification, saved.model.tuning
    return {
        "out": str(saved.path),
        "recipe": saved.model.recipe.name,
        "samples": saved.num_samples,
        "file_bytes": check.file_bytes,
        "tensor_bytes": saved.model.weights.num_bytes(),
        "source_bytes": saved.source_bytes,
        "activation_bits": saved.model.run_settings.activation_bits,
        "activations": _activations(saved),
        "kv_format": saved.model.run_settings.kv_format,
        "quantized_share": check.quantized_share,
        "tuning": None if tuning is None else asdict(tuning),
        "trials": [asdict(trial) for trial in saved.trials],
        "sensitivity": {part.name: part.options[0].loss for part in saved.sensitivities},
        "check_kld": check.agreement.mean_kl,
        "check_same_top": check.agreement.same_top,
        "notes": _notes(saved),
        "tensors": tensors,
    }


def print_summary(saved: "SavedModel") -> None:
    """Size, the kernel of every format, and what the check has found; notes on standard error."""
    check = saved.verification
    print(f"{saved.path}: {check.file_bytes / 1e6:.1f} MB, from {saved.source_bytes / 1e6:.1f} MB of tensors")
    sizes: Counter[tuple[str, str]] = Counter()
    for plan in (piece for outcome in saved.model.outcomes for piece in outcome.plan.pieces):
        sizes[(str(plan.format or "kept"), plan.kernel)] += plan.num_bytes
    for (format, kernel), size in sizes.most_common():
        print(f"  {format:<5} {size / 1e6:9.2f} MB, run by {kernel}")
    activations = _activations(saved)
    if activations is not None:
        print(f"  activations {activations['scheme']}, run by {activations['kernel']}")
    kv_format = saved.model.recipe.kv_format
    if kv_format is not None:
        print(f"  keys and values stored as {kv_format}, run by the attention kernels (docs/kv-cache.md)")
    tuned = saved.model.tuning
    if tuned is not None:
        gain = f"KL divergence of windows held out {tuned.before:.4f} before, {tuned.after:.4f} after"
        print(f"  scales tuned end to end in {tuned.num_steps} steps: {gain}")
    print(f"  {check.quantized_share:.1%} of the weights are quantised; read back and compared with the source:")
    print(f"  KL divergence {check.agreement.mean_kl:.4f}, same top token {check.agreement.same_top:.1%}")
    for trial in saved.trials:
        verdict = "holds" if trial.holds else "does not hold"
        print(f"  tried {trial.bits_per_weight:.2f} bits a weight: {trial.measured:.4g}, {verdict}")
    for part in saved.sensitivities:
        if part.collapses:
            print(f"  kept high: {part.evidence}", file=sys.stderr)
    for note in _notes(saved):
        print(f"vivace: note: {note}", file=sys.stderr)


def _activations(saved: "SavedModel") -> dict[str, str] | None:
    from vivace.compress.activation_schemes import find_kernel

    scheme = saved.model.recipe.activations
    return None if scheme is None else {"scheme": scheme.name, "kernel": find_kernel(scheme).kernel}


def _notes(saved: "SavedModel") -> list[str]:
    """What was done otherwise than the recipe asks, in words, each once."""
    from vivace.compress.layout import idle_rules

    plans, recipe = [outcome.plan for outcome in saved.model.outcomes], saved.model.recipe
    notes = [plan.note for plan in plans if plan.note]
    for match in idle_rules(recipe, [plan.name for plan in plans], saved.model.spec.num_layers):
        notes.append(f"the rule for {match} decides over no matrix: none has such a name, or a rule before it matches")
    if recipe.bias_correction and not any(plan.name.endswith(".bias") for plan in plans):
        notes.append("bias_correction did nothing: no linear of this model has a bias")
    if 0 < saved.num_samples < recipe.calibration.samples:
        wanted = f"{recipe.calibration.samples} windows of {recipe.calibration.tokens} tokens"
        notes.append(f"calibrated on {saved.num_samples} windows: the text has no more, {wanted} were asked for")
    return list(dict.fromkeys(notes))
