"""Whether the data's labels are those that the model is built for."""

from collections import Counter

import numpy as np

from mae_lightning.data.manifest import Manifest
from mae_lightning.planning.checks.finding import Finding

CHECK = "labels"
LABEL_CURE = "name data with labels: class folders, or .cls beside the images of a shard"
CURE = "name each class once, in the order of the labels, in classes.txt or the manifest's class_names"


def check_labels(
    manifest: Manifest,
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    model_classes: int | None,
    takes_labels: bool,
) -> Finding:
    """Whether labels, their names and the model's outputs go together.

    Args:
        manifest: The training samples.
        class_names: Of the labels, where the data has names.
        num_classes: Of the data.
        model_classes: What the model was told by hand; None where it follows the data.
        takes_labels: Whether the model is a classifier.
    """
    if not takes_labels:
        return Finding(CHECK, True, "the model takes none")
    if not manifest.is_labelled or num_classes is None:
        return Finding(CHECK, False, "the model is a classifier, and the images have no labels", LABEL_CURE)
    if model_classes not in (None, num_classes):
        text = f"the data has {num_classes} classes, and the model is told {model_classes}"
        return Finding(CHECK, False, text, "leave out --model.init_args.num_classes: it follows the data")
    name, times = Counter(class_names or ("",)).most_common(1)[0]
    if times > 1:
        return Finding(CHECK, False, f"class '{name}' is named {times} times", CURE)
    present = len(np.unique(manifest.label))
    named = "with names" if class_names else "without names"
    empty = f", {num_classes - present} of them without a training image" if present < num_classes else ""
    return Finding(CHECK, True, f"{num_classes} classes {named}{empty}")
