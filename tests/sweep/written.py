"""Files of a search as they are written at its end, without the search."""

import yaml

from twotower.sweep.trials import Outcome, Trial, write_trials

OVERRIDES = {label: ["data=synthetic", f"variant={label}"] for label in ("dat", "mf")}


def write_search(folder, budget=2, best=0.2, data="synthetic"):
    """``trials.csv`` and ``search.yaml`` of two variants; the best ``lr`` is that of trial 1."""
    trials = []
    for label, values in (("dat", (0.4, 0.5)), ("mf", (0.6, 0.3))):
        for number in range(budget):
            lr = (0.1, best)[number] if number < 2 else 0.9
            value = values[number] if number < 2 else 0.2
            outcome = Outcome("complete", value, 2, 1.0)
            trials.append((label, Trial(number, {"optimizer.lr": lr}, None, outcome)))
    write_trials(folder, trials)
    lr = {"optimizer.lr": {"low": 0.1, "high": 1.0}}
    about = {
        "mode": "max",
        "budget": budget,
        "seed": 5,
        "data": data,
        "space": {"dat": lr, "mf": dict(lr)},
        "overrides": {label: [f"data={data}", *texts[1:]] for label, texts in OVERRIDES.items()},
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
