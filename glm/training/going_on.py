"""Describes in messages what the command of a stopped run will do when it is given again."""

from glm.options.finetune import FinetuneArguments

OVERWRITE = "overwrite_output_dir"


def overwrites_anything(arguments: FinetuneArguments) -> bool:
    """Whether the command line itself, not a file, allows deleting even an unfinished run."""
    typed = {argument[2:].partition("=")[0] for argument in arguments.argv if argument.startswith("--")}
    return arguments.training.overwrite_output_dir and OVERWRITE in typed


def same_command(arguments: FinetuneArguments) -> str:
    """Says what the same command does after a checkpoint was saved; "there" is that checkpoint."""
    wish = arguments.training.resume_from_checkpoint
    if wish is not None and wish.lower() != "true":
        return (
            f"the same command goes on from {wish} again; it goes on from there with --resume_from_checkpoint true "
            "in its place"
        )
    if wish is None and overwrites_anything(arguments):
        return f"the same command deletes it and starts anew; without --{OVERWRITE} it goes on from there"
    return "the same command goes on from there"


def after_a_loss(arguments: FinetuneArguments) -> str:
    """Says what to do after a process of the run was lost and no checkpoint could be saved."""
    there = "the last checkpoint"
    if arguments.training.save_strategy.value == "no" and arguments.training.do_train:
        there += ", if there is one (save_strategy no saves none)"
    text = same_command(arguments).replace("from there", f"from {there}").replace("deletes it", f"deletes {there}")
    return text[0].upper() + text[1:]
