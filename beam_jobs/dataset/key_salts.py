"""The salt of the keys of the user's own data: random, and kept in a file beside the records.

A job takes the salt of `--key_salt`, else that of the file `key_salt.txt` beside `--reports` or `--output`,
else a new one, which it writes beside the output. So jobs with their outputs in one folder make matching
keys. The salt traces keys to identifiers: keep the file, and do not pass it on with the records. Keys of
published archives have a public salt.
"""

import dataclasses
import os
import secrets
from types import ModuleType
from typing import TypeVar

from etils import epath

from beam_jobs.dataset.options import JobOptions
from medclip_keras.errors import refusal, require
from medclip_keras.files import absolute, is_local

KEY_SALT_NAME = "key_salt.txt"
_Options = TypeVar("_Options", bound=JobOptions)


def is_private(source: ModuleType) -> bool:
    """Whether a source reads the user's own data."""
    return getattr(source, "PRIVATE", False)


def with_key_salt(options: _Options, source: ModuleType) -> _Options:
    """Options with the kept salt, else a new one, if the source is private and no salt is given."""
    if options.key_salt or options.keep_ids or not is_private(source):
        return options
    records = [folder for folder in (options.reports, options.output) if folder]
    paths = [absolute(folder).parent / KEY_SALT_NAME for folder in records]
    kept = next((path for path in paths if path.exists()), None)
    if kept is None:
        return dataclasses.replace(options, key_salt=secrets.token_hex(), new_salt_path=str(paths[-1]))
    salt = kept.read_text().strip()
    require(bool(salt), KEY_SALT_NAME, "a file with the salt of the keys", str(kept), "It is empty.")
    return dataclasses.replace(options, key_salt=salt)


def keep_key_salt(job: str, options: JobOptions) -> None:
    """Write a new salt to its file, readable by its owner alone; ValueError if another job just did so."""
    if not options.new_salt_path:
        return
    path = epath.Path(options.new_salt_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise refusal("key_salt", "that of the other job", str(path), "Start this job again.") from None
    if is_local(path):
        os.chmod(path, 0o600)
    path.write_text(f"{options.key_salt}\n")
    print(
        f"{job}: made a random salt for the keys: {path}. Jobs with an output beside this file use it. "
        "Keep it, and do not pass it on with the records."
    )
