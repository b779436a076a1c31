"""Text environments for language models: games of many turns, and questions of one."""

from maxent_onpolicy.llm.environments.base import SPLITS, TaskSet, TextEnvironment
from maxent_onpolicy.llm.environments.registry import list_tasks, make_tasks

__all__ = ["SPLITS", "TaskSet", "TextEnvironment", "list_tasks", "make_tasks"]
