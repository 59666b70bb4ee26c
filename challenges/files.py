"""Files of patients' data go when their rows go, and not before the transaction is certain."""

from functools import partial
from typing import Any

from django.core.files.storage import Storage
from django.db import transaction

from challenges.models import Dataset


def remove_later(storage: Storage, *names: str) -> None:
    """Deletes these files once the transaction is committed."""
    for name in names:
        if name:
            transaction.on_commit(partial(storage.delete, name))


def remove_with_dataset(*, instance: Dataset, **kwargs: Any) -> None:
    """Deletes the files of a dataset that was deleted."""
    for file in (instance.source, instance.table, instance.sample):
        remove_later(file.storage, file.name or "")
