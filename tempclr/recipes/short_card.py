"""The model card of trainings that are not published with a probe: what was trained, its settings, its last numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tempclr.data.files import atomic_path

__all__ = ["write_short_card"]

CARD = """---
library_name: tempclr
license: apache-2.0
tags: [tempclr, {tag}, video-classification]
---

# {name}

A `{kind}` of {subject}

```python
from {module} import {kind}

model = {kind}.from_pretrained("{name}")
```

Configuration:

```json
{settings}
```

Last numbers of the training log:

{numbers}
"""


def write_short_card(trainer: Any, *, subject: str, tag: str, module: str, without: tuple[str, ...] = ()) -> None:
    """Write ``README.md`` in a trainer's output folder, on the first rank.

    Args:
        trainer: a Trainer after training, or in the middle of it.
        subject: what the model is of, a sentence's end.
        tag: the Hub's tag of the method.
        module: where the model's class is imported from.
        without: settings of the configuration left out.
    """
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    numbers: dict[str, Any] = {}
    for entry in trainer.state.log_history:
        numbers |= {name: value for name, value in entry.items() if isinstance(value, int | float)}
    settings = {name: value for name, value in model.config.to_diff_dict().items() if name not in without}
    text = CARD.format(
        kind=type(model).__name__,
        subject=subject,
        tag=tag,
        module=module,
        name=Path(trainer.args.output_dir).resolve().name,
        settings=json.dumps(settings, indent=2),
        numbers="\n".join(f"- {name}: {value:.6g}" for name, value in sorted(numbers.items())),
    )
    with atomic_path(Path(trainer.args.output_dir, "README.md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
