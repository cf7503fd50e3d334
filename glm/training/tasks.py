"""Numbers of a run's tasks, which select adapters and tags."""

from glm.data.mixture import NamedFile
from glm.errors import UsageError
from glm.models.protocol import NO_TASK, Family
from glm.options.finetune import FinetuneArguments


def number_of(arguments: FinetuneArguments, family: Family, file: NamedFile) -> int:
    """Returns the task number of a file's records: among the family's own tasks, else in the order of training files.

    Raises:
        UsageError: adapters are trained, and which one its records pass through is not said.
    """
    if family.tasks:
        named, own = arguments.data_of(file).task_name, arguments.data.template is None
        return family.tasks.index(named) if own and named in family.tasks else NO_TASK
    if arguments.adapter.adapter_bottleneck is None:
        return NO_TASK
    tasks, name = arguments.tasks, arguments.task_of(file)
    if len(tasks) == 1 or name in tasks:
        return tasks.index(name) if len(tasks) > 1 else 0
    raise UsageError(
        f"{file.path}: whose adapter its records pass through is not said; write NAME={file.path} with one of "
        f"{', '.join(tasks)}"
    )
